"""The machine that a process runs on: memory and cores, other processes, threads."""

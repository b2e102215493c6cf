"""Videos into patches: files and lists of frames, read in a process of its own."""

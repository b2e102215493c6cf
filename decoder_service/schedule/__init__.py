"""Pure policy: who runs, how much, what is drafted."""

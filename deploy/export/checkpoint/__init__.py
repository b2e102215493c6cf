"""Reading a checkpoint, and refusing one that cannot be served."""

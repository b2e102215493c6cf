"""What differs between model families in a prompt: one file each, and a row in the registry."""

"""What differs between families of models: a file each, and a row in the registry."""

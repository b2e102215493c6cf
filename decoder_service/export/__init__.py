"""Makes a bundle out of a checkpoint."""

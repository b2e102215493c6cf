"""What a bundle on disk holds."""

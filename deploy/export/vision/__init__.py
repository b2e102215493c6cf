"""The vision tower's part of a bundle."""

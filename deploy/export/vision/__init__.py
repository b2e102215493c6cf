"""The vision tower's part of a bundle: its weights and its graphs."""

"""What comes back: events, text, choices."""

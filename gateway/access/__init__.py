"""Who may ask, how much at once, and for which model."""

"""Keys and values in memory."""

"""The front door: conversations in, text out."""

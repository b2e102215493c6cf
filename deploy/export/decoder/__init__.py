"""The text model as graphs."""

"""A conversation as token ids, spans and position ids."""

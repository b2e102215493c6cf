"""One request's life in the decoder."""

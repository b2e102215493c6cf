"""Bodies of requests: their bounds, their encodings, and what is in them."""

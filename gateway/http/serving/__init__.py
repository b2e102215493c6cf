"""The HTTP server: a socket's bytes as requests, and answers as bytes."""

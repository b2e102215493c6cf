"""The gRPC edge: messages in, events out."""

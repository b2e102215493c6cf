"""Images as clients send them."""

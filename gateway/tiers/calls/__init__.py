"""One call to a decoder: what is sent, what is read ahead, and how it ends."""

"""What images are to both ends of the wire."""

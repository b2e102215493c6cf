"""What images and videos are to both ends of the wire."""

"""What Serve is given of ours: how many replicas there are, and which one takes an image."""

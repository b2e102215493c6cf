"""Work predicted: what an image costs, how many replicas there should be, which one is first."""

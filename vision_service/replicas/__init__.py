"""Encoder replicas on Ray Serve, and what ends them."""

"""Encoded images into patches."""

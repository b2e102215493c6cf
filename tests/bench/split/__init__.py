"""Tiers that are split beside one process that does both, for real."""

"""Prompts whose visual features the caller brings: what is checked of both, and where they wait."""

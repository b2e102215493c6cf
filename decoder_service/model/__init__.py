"""The graph, and how a step is run in it."""

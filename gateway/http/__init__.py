"""The HTTP door: routes, limits, errors, connections."""

"""Version 1 of the wire; stubs are generated when the package is installed."""

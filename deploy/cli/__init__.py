"""The `tandem` command: what its commands are called and take."""

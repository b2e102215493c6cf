"""The `tandem` command and what runs the services on one machine."""

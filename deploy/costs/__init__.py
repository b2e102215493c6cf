"""What each kind of work costs on this machine, for `tandem plan`."""

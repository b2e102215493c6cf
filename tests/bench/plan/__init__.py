"""The simulator behind `tandem plan` beside real services."""

"""`tandem export`: a checkpoint into a bundle for all three tiers."""

"""What `tandem verify` compares a bundle with: transformers, and the bundle at level 0."""

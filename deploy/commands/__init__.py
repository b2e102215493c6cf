"""The commands of `tandem`, one module each."""

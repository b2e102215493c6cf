"""What is particular to one family of models in the vision tier: one module each."""

"""A box for parsers: worker processes that decode clients' files, and may die of them."""

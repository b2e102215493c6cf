"""The demonstration model: how it was drawn for, trained, measured and shipped."""

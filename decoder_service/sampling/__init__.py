"""Choosing tokens from logits: parameters, penalties, filters, draws, log-probabilities."""

"""Fleets of addresses: where they come from, which are trusted with calls, what may be retried."""

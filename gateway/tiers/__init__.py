"""The two tiers behind the gateway: addresses, health, calls."""

"""A front with replicas that cost nothing, a plain server beside it, and a client for both."""

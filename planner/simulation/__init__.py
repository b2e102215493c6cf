"""A discrete-event simulation of the tiers: their own policies, a cost model for their models."""

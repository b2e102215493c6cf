"""The compute thread: commands, steps, events."""

"""How models call tools: the grammar a call is held to, and the call read back from its text."""

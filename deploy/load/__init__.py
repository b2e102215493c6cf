"""Load on any endpoint that speaks OpenAI's chat API, and the figures of it."""

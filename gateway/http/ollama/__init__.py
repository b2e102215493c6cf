"""/api: what clients of Ollama ask."""

"""Vision towers: patches into embeddings."""

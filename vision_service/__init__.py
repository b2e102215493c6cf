"""The vision tier: pictures in, embeddings and DeepStack features out."""

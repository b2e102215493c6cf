"""The vision tier: images in, embeddings and DeepStack features out."""

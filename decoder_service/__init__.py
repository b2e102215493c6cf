"""The text tier: spliced multimodal prompts in, tokens out."""

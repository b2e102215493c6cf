"""POST /v1/completions: texts that stand for themselves, without a chat template."""

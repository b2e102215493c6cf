"""POST /tokenize and /detokenize, as vLLM has them: what a prompt costs, before it is asked."""

"""/v1/responses: OpenAI's Responses, as Open Responses writes them down."""

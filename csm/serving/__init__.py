"""A server that a voice is talked with: a page, a WebSocket, and the endpoints that OpenAI clients call."""

"""Speaking and writing: sampling, frame-by-frame state, and a conversation that goes on."""

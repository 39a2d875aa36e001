"""Files of a tokenizer: its folder, the packaged form of its weights, and exported programs."""

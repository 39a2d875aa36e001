"""The semantic branch of the tokenizer: an encoder of what is said, started from a speech recogniser."""

"""The steps of a run, one file each: train the tokenizer, encode, train the model, speak."""

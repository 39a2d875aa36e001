"""What is evaluated: a run, a tokenizer, a voice. Each produces clips and lists its metrics."""

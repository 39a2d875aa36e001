"""Parity of training and generation: teacher forcing against what the generator computes."""

"""Scripted users against a live conversation: whether it yields, to whom, and how fast."""

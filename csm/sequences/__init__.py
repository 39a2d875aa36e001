"""Turns and packed rows: the batch contract between data and network."""

"""Layouts of corpora that others use: one file each, which recognises it and reads its conversations."""

"""The commands: one file each, with its arguments and what they run."""

"""File formats of models: our own folder layout, and the two of csm-1b."""

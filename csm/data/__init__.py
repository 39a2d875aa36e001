"""From corpora to batches: the manifest, corpus folders, alignment, encoded turns, packed rows."""

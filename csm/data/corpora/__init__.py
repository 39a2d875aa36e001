"""One file per corpus: get it, verify it, turn it into a corpus folder."""

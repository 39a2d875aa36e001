"""One file per corpus, and what they share: the writer of corpus folders, downloads, segmentation."""

"""From recordings to turns: manifests, audio in and out, prosody, segmentation, corpora."""

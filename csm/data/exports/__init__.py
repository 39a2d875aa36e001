"""Corpora in the layouts of others, one file each; `csm/data/corpora/layouts` reads them back."""

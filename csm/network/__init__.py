"""The network: rows in, named outputs out."""

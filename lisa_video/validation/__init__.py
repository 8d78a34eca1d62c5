"""Whether a dataset can be trusted: its manifest, its files, and what they say about each other."""

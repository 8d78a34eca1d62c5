"""Public sets of videos, in the folders that they come in, into the format of data/README.md."""

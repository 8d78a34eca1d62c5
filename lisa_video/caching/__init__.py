"""Encodings of a dataset on disk, so that training need not make them again and again."""

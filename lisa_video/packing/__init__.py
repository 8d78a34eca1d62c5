"""Datasets as tar shards, for training that reads them from elsewhere."""

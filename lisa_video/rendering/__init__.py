"""A driver, its skeleton and what checkpoints make of it, in one labelled video."""

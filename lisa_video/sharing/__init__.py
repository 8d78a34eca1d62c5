"""A finished run as a folder for others: weights, model card, samples."""

"""How much memory a training needs, from its configuration alone."""

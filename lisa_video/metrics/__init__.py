"""Measures of generated video."""

"""Rendered articulated figures: the data of the embedded backbones, of the demos and of the tests."""

"""The web demo: a page on which a driver, checkpoints and a prompt become a video."""

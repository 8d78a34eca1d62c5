"""Pose-controlled video generation by likelihood score alignment (LISA) on a frozen video backbone.

Importing this package is light on purpose: torch, diffusers and the video readers are loaded by the
modules that use them, so that `--help` and configuration errors answer at once.
"""

__version__ = "0.1.0"

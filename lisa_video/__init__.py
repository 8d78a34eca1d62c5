"""Pose-controlled video generation by likelihood score alignment (LISA) on a frozen video backbone.

Importing this package is light on purpose: torch, diffusers and the video readers are loaded by the
modules that use them, so that `--help` and configuration errors answer at once.
"""

import logging

# What diffusers imports wherever it is installed warns, on a CPU or without torchvision, of parts that
# nobody here asked for.
for _name in ("bitsandbytes.backends.cpu.ops", "transformers.utils.import_utils"):
    logging.getLogger(_name).setLevel(logging.ERROR)

__version__ = "0.1.0"

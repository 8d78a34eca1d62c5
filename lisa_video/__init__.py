"""Pose-controlled video generation by likelihood score alignment (LISA) on a frozen video backbone.

Importing this package is light on purpose: torch, diffusers and the video readers are loaded by the
modules that use them, so that `--help` and configuration errors answer at once.
"""

import logging

# diffusers imports it wherever it is installed; on a CPU it then warns of kernels that nobody asked for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"

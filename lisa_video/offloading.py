"""Modules whose weights accelerate keeps on the CPU: where they compute, and how to bring them there."""

from __future__ import annotations

import torch
from torch import nn


def execution_device(module: nn.Module) -> torch.device:
    """Where a module computes: where its weights are, or where an offloading hook takes them."""
    for part in module.modules():
        device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next(module.parameters()).device


def bring(module: nn.Module) -> None:
    """Bring an offloaded module where it computes, before parts of it are called on their own."""
    hook = getattr(module, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(module)

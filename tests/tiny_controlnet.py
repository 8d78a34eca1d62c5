"""A ControlNet of a few thousand seeded weights, for tests."""

from __future__ import annotations

import torch
from diffusers import ControlNetModel
from torch import nn


def tiny_controlnet(seed: int = 3, **changes: object) -> ControlNetModel:
    """For the UNet of `tiny_backbone`, as after training: no layer is 0."""
    torch.manual_seed(seed)
    settings = {
        "in_channels": 4,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "conditioning_embedding_out_channels": (6, 8, 10),
    }
    controlnet = ControlNetModel(**(settings | changes))
    for parameter in controlnet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return controlnet.eval()

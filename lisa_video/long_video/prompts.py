"""Prompt travel: how much each prompt counts at each frame.

Shapes: F video frames, P prompts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lisa_video.errors import UserError
from lisa_video.long_video.settings import PromptTravel


def travel_weights(travel: PromptTravel, frames: int) -> Tensor:
    """Weights (F, P) of the prompts' text states, float32; those of a frame sum to one.

    Linear over `blend` frames around each border. Raises UserError where a prompt starts after the
    last frame.
    """
    late = [each.start for each in travel.prompts if each.start >= frames]
    if late:
        raise UserError(f"prompts: one starts at frame {late[0]}, and the video has {frames}")
    middle = torch.arange(frames, dtype=torch.float64)[:, None] + 0.5
    borders = torch.tensor([each.start for each in travel.prompts[1:]], dtype=torch.float64)
    width = max(travel.blend, 1e-9)
    reached = ((middle - borders) / width + 0.5).clamp(0, 1)
    ones, zeros = torch.ones(frames, 1), torch.zeros(frames, 1)
    return (torch.cat([ones, reached], 1) - torch.cat([reached, zeros], 1)).float()

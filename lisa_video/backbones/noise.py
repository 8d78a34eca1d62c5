"""Noise levels as a checkpoint's scheduler defines them: by a table of timesteps, or by flow.

Shapes: B batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import get_args

import torch
from diffusers import SchedulerMixin
from einops import rearrange
from torch import Tensor

from lisa_video.errors import UserError
from lisa_video.predictions import PredictionType, shifted_time


class NoisePath(ABC):
    """x_t = a x_0 + s n over timesteps, and what a network trained on it predicts."""

    prediction_type: PredictionType
    num_timesteps: int
    """Timesteps run from 0 to this, exclusive."""

    @abstractmethod
    def signal_and_noise(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """a and s at timesteps (B,): two float32 tensors (B, 1, 1, 1, 1)."""

    @abstractmethod
    def timesteps(self, times: Tensor) -> Tensor:
        """Timesteps of `times` (B,) in [0, 1), 0 clean and 1 all noise."""

    def sample(self, batch: int, generator: torch.Generator | None, shift: float) -> Tensor:
        """Draw timesteps (B,) on the generator's device: uniform at shift 1, see `shifted_time`."""
        device = None if generator is None else generator.device
        uniform = torch.rand(batch, generator=generator, device=device, dtype=torch.float64)
        return self.timesteps(shifted_time(uniform, shift))


class TablePath(NoisePath):
    """Diffusion over integer timesteps, by the scheduler's `alphas_cumprod`."""

    def __init__(self, scheduler: SchedulerMixin, prediction_type: PredictionType) -> None:
        # In float64, since 1 - alphas_cumprod loses digits where it is small.
        alphas = scheduler.alphas_cumprod.double()
        self._signal, self._noise = alphas.sqrt().float(), (1 - alphas).sqrt().float()
        self.prediction_type, self.num_timesteps = prediction_type, len(alphas)

    def signal_and_noise(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        a, s = (table.to(timesteps.device)[timesteps] for table in (self._signal, self._noise))
        return rearrange(a, "b -> b 1 1 1 1"), rearrange(s, "b -> b 1 1 1 1")

    def timesteps(self, times: Tensor) -> Tensor:
        return (times * self.num_timesteps).long().clamp(max=self.num_timesteps - 1)


class FlowPath(NoisePath):
    """Rectified flow: a = 1 - u and s = u at timestep u * num_timesteps, float32."""

    prediction_type: PredictionType = "flow"

    def __init__(self, scheduler: SchedulerMixin) -> None:
        self.num_timesteps = int(scheduler.config.num_train_timesteps)

    def signal_and_noise(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        u = rearrange(timesteps.float() / self.num_timesteps, "b -> b 1 1 1 1")
        return 1 - u, u

    def timesteps(self, times: Tensor) -> Tensor:
        return (times * self.num_timesteps).float()


def noise_path(scheduler: SchedulerMixin) -> NoisePath:
    """The noise levels that a scheduler of diffusers stands for.

    Raises UserError where it has none, or trains for no prediction type known here.
    """
    name = scheduler.config.get("prediction_type", "epsilon")
    if type(scheduler).__name__.startswith("FlowMatch") or name == "flow_prediction":
        return FlowPath(scheduler)
    if not hasattr(scheduler, "alphas_cumprod"):
        raise UserError(
            f"scheduler {type(scheduler).__name__} has no noise schedule (alphas_cumprod), and is "
            "not one of flow matching; use one such as DDIMScheduler"
        )
    for kind in get_args(PredictionType):
        if kind == name and kind != "flow":
            return TablePath(scheduler, kind)
    raise UserError(
        f"scheduler: prediction_type '{name}' is not one of epsilon, v_prediction and sample"
    )

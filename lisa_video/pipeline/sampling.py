"""A scheduler of diffusers over one generation.

Shapes: B batch, C latent channels, T latent frames, h w latent cells.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers import CogVideoXDPMScheduler, SchedulerMixin
from einops import rearrange
from torch import Tensor

from lisa_video.errors import UserError
from lisa_video.loading import first_line

Generators = torch.Generator | list[torch.Generator] | None


class Sampler:
    """The steps of a scheduler, whatever it wants to be called with.

    - `layout`: the axes, as an einops pattern, in which diffusers' own pipeline of the backbone
      keeps latents, and so the order in which noise is drawn;
    - `generator`: of the samplers that draw noise at each step.

    Raises UserError where the scheduler takes no such number of steps.
    """

    def __init__(
        self,
        scheduler: SchedulerMixin,
        steps: int,
        device: torch.device,
        layout: str,
        generator: Generators,
    ) -> None:
        self._scheduler, self._layout = scheduler, layout
        try:
            scheduler.set_timesteps(steps, device=device)
        except ValueError as error:
            name = type(scheduler).__name__
            raise UserError(f"scheduler {name}, {steps} steps: {first_line(error)}") from None
        self.timesteps: Tensor = scheduler.timesteps
        takes = inspect.signature(scheduler.step).parameters
        self._options = {"generator": generator} if "generator" in takes else {}
        self._clean: Tensor | None = None

    @property
    def initial_sigma(self) -> float:
        """Deviation of the noise to start from; flow matching starts from plain noise."""
        return float(getattr(self._scheduler, "init_noise_sigma", 1.0))

    def scaled(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Latents as the network takes them; flow matching has no method for it."""
        if not hasattr(self._scheduler, "scale_model_input"):
            return latents
        scaled: Tensor = self._scheduler.scale_model_input(latents, timestep)
        return scaled

    def step(self, index: int, prediction: Tensor, latents: Tensor) -> Tensor:
        """Latents (B, C, T, h, w) after step `index`, of the prediction at it."""
        prediction, latents = (
            rearrange(each, f"b c t h w -> {self._layout}") for each in (prediction, latents)
        )
        stepped = self._stepped(index, prediction, latents)
        return rearrange(stepped, f"{self._layout} -> b c t h w")

    def _stepped(self, index: int, prediction: Tensor, latents: Tensor) -> Tensor:
        timestep = self.timesteps[index]
        step: Any = self._scheduler.step
        if not isinstance(self._scheduler, CogVideoXDPMScheduler):
            after: Tensor = step(prediction, timestep, latents, **self._options).prev_sample
            return after
        # The one multistep sampler that leaves it to its caller to remember the last step.
        before = self.timesteps[index - 1] if index else None
        after, self._clean = step(
            prediction, self._clean, timestep, before, latents, **self._options
        )
        return after

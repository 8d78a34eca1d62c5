"""From noise to latents: one step predicts every window and samples the whole video.

Shapes: B batch, C latent channels, T latent frames, t of a window, h w latent cells, L tokens of
text, D text width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lisa_video.pipeline.request import Request


class Denoising:
    """The state of a generation between its steps; models compute on `device`."""

    def __init__(self, request: Request, device: torch.device) -> None:
        self._request, self._device = request, device
        self._dtype = request.backbone.dtype
        self._text = request.text
        self.latents = request.latents

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a callback may see and replace; no negative prompt without guidance."""
        tensors = {"latents": self.latents, "prompt_embeds": self._text.prompt}
        if self._text.negative is not None:
            tensors["negative_prompt_embeds"] = self._text.negative
        return tensors

    def replace(self, changed: Mapping[str, Tensor]) -> None:
        """Take over what a callback gave back."""
        self.latents = changed.get("latents", self.latents)
        self._text = replace(
            self._text,
            prompt=changed.get("prompt_embeds", self._text.prompt),
            negative=changed.get("negative_prompt_embeds", self._text.negative),
        )

    def step(self, index: int, guidance_scale: float) -> None:
        """Denoise by step number `index`."""
        sampler = self._request.sampler
        timestep = sampler.timesteps[index]
        scaled = sampler.scaled(self.latents, timestep)
        prediction = torch.zeros_like(self.latents)
        for window in self._request.windows.windows(index):
            frames = range(window.start, window.stop)
            noisy = scaled[:, :, window.start : window.stop].to(self._device)
            part = self._predicted(index, noisy, timestep, frames, guidance_scale)
            weights = torch.from_numpy(window.weights).to(prediction)[:, None, None]
            prediction[:, :, window.start : window.stop] += weights * part.to(prediction)
        self.latents = sampler.step(index, prediction, self.latents)

    def _predicted(
        self, index: int, noisy: Tensor, timestep: Tensor, window: range, guidance_scale: float
    ) -> Tensor:
        """Guided prediction, float32, for latents (B, C, t, h, w) of a window."""
        request, backbone = self._request, self._request.backbone
        first = window.start * backbone.frames_per_latent
        later = (len(window) - 1) * backbone.frames_per_latent
        prompt, negative = self._text.window(range(first, first + later + 1))
        halves, text = 1, prompt
        if negative is not None and guidance_scale > 1:
            halves, text = 2, torch.cat([negative, prompt])
        noisy = noisy.to(self._dtype)
        timesteps = timestep.to(self._device).expand(len(noisy))
        residuals = None
        if request.control.acts(index, len(request.sampler.timesteps)):
            read = prompt if request.share_control else text
            residuals = request.control.residuals(backbone, noisy, timesteps, read, window)
            if residuals is not None and request.share_control:
                residuals = residuals.repeated(halves)
        prediction = backbone.predict(
            noisy.repeat(halves, 1, 1, 1, 1), timesteps.repeat(halves), text, residuals
        ).float()
        if halves == 1:
            return prediction
        without, with_text = prediction.chunk(2)
        return without + guidance_scale * (with_text - without)

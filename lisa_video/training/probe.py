"""The adherence probe: does the side network follow the poses, measured while it trains.

On held-out clips, with noise and timesteps that never change, the loss of the controlled prediction
is taken with the clips' own poses, with poses shuffled among the clips, and with none. A network
that ignores poses has equal losses; the gap between the first two says how much it uses them.

Shapes: N held-out clips, D draws, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import reduce
from torch import Tensor, nn

from lisa_video.backbones.base import VideoBackbone
from lisa_video.training.config import ProbeConfig
from lisa_video.training.draws import Purpose, stream
from lisa_video.training.losses import (
    NoisedLatents,
    explained_share,
    noise_latents,
)


@dataclass(frozen=True)
class ProbeResult:
    """Mean squared errors against the regression target, each a mean over clips and draws."""

    true: float
    """With each clip's own poses."""
    shuffled: float
    """With the poses of another clip."""
    none: float
    """With black pose frames."""
    prior: float
    """Of the backbone alone."""

    @property
    def gap(self) -> float:
        """The adherence gap: how much worse wrong poses are than the right ones."""
        return self.shuffled - self.true

    @property
    def explained(self) -> float:
        """Share of the likelihood target that the controlled prediction explains."""
        return explained_share(self.true, self.prior)

    def values(self) -> dict[str, float]:
        """All of it by name, as it is logged."""
        return {
            "true": self.true,
            "shuffled": self.shuffled,
            "none": self.none,
            "prior": self.prior,
            "gap": self.gap,
            "explained": self.explained,
        }


class AdherenceProbe:
    """Held-out clips, noised once and for all, in main memory: only those that are just looked at
    are on the backbone's device.

    `latents` (N, C, T, h, w), `text` (N, L, D) and `pose_frames` (N, F, 3, H, W) are those of at
    least two clips; `at_once` is the number of clips per forward pass.
    Noise, timesteps (towards high noise by `shift`) and shuffling derive from `config.seed`.
    """

    def __init__(
        self,
        config: ProbeConfig,
        backbone: VideoBackbone,
        latents: Tensor,
        text: Tensor,
        pose_frames: Tensor,
        *,
        shift: float,
        at_once: int,
    ) -> None:
        generator = stream(config.seed, Purpose.PROBE)
        clips = len(latents)
        latents = latents.to(backbone.device)
        self.backbone, self.text, self.pose_frames = backbone, text.cpu(), pose_frames.cpu()
        self.shuffled_order = shuffled_order(clips, generator)
        self.draws = [
            _in_main_memory(
                noise_latents(
                    backbone,
                    latents,
                    torch.randn(latents.shape, generator=generator).to(latents.device),
                    backbone.sample_timesteps(clips, generator, shift),
                )
            )
            for _ in range(config.draws)
        ]
        self.own_order = torch.arange(clips)
        self.groups = self.own_order.split(at_once)
        self.prior = self._mean_loss(None, None)

    def measure(self, side_network: nn.Module) -> ProbeResult:
        """All four losses; the side network is left in the mode, training or not, it was in."""
        was_training = side_network.training
        side_network.eval()
        result = ProbeResult(
            true=self._mean_loss(side_network, self.own_order),
            shuffled=self._mean_loss(side_network, self.shuffled_order),
            none=self._mean_loss(side_network, None),
            prior=self.prior,
        )
        side_network.train(was_training)
        return result

    @torch.no_grad()
    def _mean_loss(self, side_network: nn.Module | None, order: Tensor | None) -> float:
        """With the poses of clip `order[i]` for clip i; None: with black pose frames."""
        errors = [
            self._errors(side_network, draw, order, group)
            for draw in self.draws
            for group in self.groups
        ]
        return torch.cat(errors).double().mean().item()

    def _errors(
        self,
        side_network: nn.Module | None,
        draw: NoisedLatents,
        order: Tensor | None,
        group: Tensor,
    ) -> Tensor:
        """Mean squared error of each clip of a group, by its indices: (len(group),)."""
        backbone, device = self.backbone, self.backbone.device
        noisy, timesteps = draw.noisy[group].to(device), draw.timesteps[group].to(device)
        text, target = self.text[group].to(device), draw.target[group].to(device)
        residuals = None
        if side_network is not None:
            poses = self.pose_frames[group if order is None else order[group]].to(device)
            poses = torch.zeros_like(poses) if order is None else poses
            side = backbone.side_output(side_network, noisy, timesteps, text, poses)
            residuals = side.residuals.to(backbone.dtype)
        predicted = backbone.predict(noisy.to(backbone.dtype), timesteps, text, residuals)
        return reduce((predicted.float() - target) ** 2, "b c f h w -> b", "mean")


def _in_main_memory(noised: NoisedLatents) -> NoisedLatents:
    return NoisedLatents(noised.noisy.cpu(), noised.target.cpu(), noised.timesteps.cpu())


def shuffled_order(count: int, generator: torch.Generator) -> Tensor:
    """A random permutation, long (count,), that maps no index to itself: one cycle through all."""
    assert count >= 2, count
    cycle = torch.randperm(count, generator=generator)
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order

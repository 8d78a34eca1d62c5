"""What a training step costs under each objective.

Three variants of the same step take turns in one run: the plain objective, LISA with the prior from
the shared encoder pass, and LISA with the prior from a second full forward, as its authors' code
has it. A step is what training repeats once latents and text states are at hand: the losses, the
backward pass, clipping and AdamW. Encoding, which all variants share, is left out, so the overheads
are those of a run with cached encodings, and the largest that a run can have.

Shapes: B batch, F frames, C latent channels, H W pixels, h w latent cells.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from lisa_video.attention import use_attention
from lisa_video.backbones.base import VideoBackbone
from lisa_video.benchmarks.config import StepBenchmarkConfig
from lisa_video.benchmarks.measure import (
    chosen_device,
    in_fresh_processes,
    interleaved_medians,
)
from lisa_video.decoder import TapDecoders, new_decoder
from lisa_video.errors import UserError
from lisa_video.hardware import peak_memory_mb
from lisa_video.injection import SideResiduals, chosen_points
from lisa_video.reports import check_new_file, format_table, package_versions, write_json
from lisa_video.training.losses import (
    Conditions,
    LisaObjective,
    LossTerms,
    NoisedLatents,
    noise_latents,
    training_losses,
)
from lisa_video.training.setup import DTYPES, open_backbone

Variant = Literal["plain", "lisa", "lisa_two_forwards", "lisa_skipped"]
VARIANTS: tuple[Variant, ...] = ("plain", "lisa", "lisa_two_forwards")
MEMORY_STEPS = 2
"""AdamW's moments exist from the first step on: the second holds all that any later one holds."""


@dataclass(frozen=True)
class StepCosts:
    """Medians over the timed steps, and peak memory, by variant."""

    seconds: dict[str, float]
    peak_mb: dict[str, float]
    """MiB: resident memory of a process that makes nothing else, or allocated tensors on CUDA."""

    def overhead_pct(self, variant: Variant) -> float:
        """Time beyond the plain step, in percent of the plain step."""
        return 100 * (self.seconds[variant] / self.seconds["plain"] - 1)

    def to_json(self) -> dict[str, Any]:
        """`peak_mb` is that of LISA with the shared encoder; the others have keys of their own."""
        return {
            "plain_s": self.seconds["plain"],
            "lisa_s": self.seconds["lisa"],
            "lisa_two_forwards_s": self.seconds["lisa_two_forwards"],
            "overhead_pct": self.overhead_pct("lisa"),
            "overhead_two_forwards_pct": self.overhead_pct("lisa_two_forwards"),
            "peak_mb": self.peak_mb["lisa"],
            "peak_plain_mb": self.peak_mb["plain"],
            "peak_two_forwards_mb": self.peak_mb["lisa_two_forwards"],
        }


def with_two_forwards(backbone: VideoBackbone) -> VideoBackbone:
    """A twin on the same models that makes the prior by a second full forward: the baseline."""

    def predict_with_prior(
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        residuals: SideResiduals,
        prior_clips: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        controlled = backbone.predict(noisy, timesteps, text, residuals)
        some = slice(None) if prior_clips is None else prior_clips
        with torch.no_grad():
            prior = backbone.predict(noisy[some], timesteps[some], text[some])
        return controlled, prior

    twin = copy.copy(backbone)
    twin.predict_with_prior = predict_with_prior  # type: ignore[method-assign]
    return twin


def check(config: StepBenchmarkConfig) -> None:
    """Raises UserError for the output file, the device, the backbone, the tap or the size."""
    if config.json is not None:
        check_new_file(config.json)
    backbone = load_on_device(config)
    backbone.check_frames(config.frames)
    backbone.check_size(config.size)
    names = chosen_points(config.injection, backbone.injection_points)
    for tap in config.taps:
        if tap not in names:
            raise UserError(f"tap={tap}: must be one of the injected points {', '.join(names)}")


def run(config: StepBenchmarkConfig) -> None:
    """Measure, print the table and write the JSON file."""
    costs = measure_costs(config)
    device = chosen_device(config.device)
    print(format_costs(costs))
    print(
        f"{config.batch_size} clips of {config.frames} frames, {config.size[0]}x{config.size[1]} "
        f"pixels, on {device.type}; medians of {config.repeats} steps"
    )
    if config.json is not None:
        details = {"device": device.type, "versions": package_versions("torch", "diffusers")}
        write_json(config.json, costs.to_json() | details)


def measure_costs(config: StepBenchmarkConfig) -> StepCosts:
    """Memory of each variant in a process of its own, then the times of all in this one."""
    peak = in_fresh_processes(partial(measure_peak_mb, config), VARIANTS, __name__)
    if config.threads:
        torch.set_num_threads(config.threads)
    backbone = load_on_device(config)
    steps: dict[str, Callable[[], object]] = {
        variant: build_step(config, backbone, variant) for variant in VARIANTS
    }
    seconds = interleaved_medians(steps, config.repeats, config.warm_up, backbone.device)
    return StepCosts(seconds, peak)


def measure_peak_mb(config: StepBenchmarkConfig, variant: Variant) -> float:
    """Peak memory in MiB of this process, which should have done nothing before."""
    if config.threads:
        torch.set_num_threads(config.threads)
    backbone = load_on_device(config)
    step = build_step(config, backbone, variant)
    for _ in range(MEMORY_STEPS):
        step()
    return peak_memory_mb(backbone.device)


def build_step(
    config: StepBenchmarkConfig, backbone: VideoBackbone, variant: Variant, fraction: float = 1.0
) -> Callable[[], LossTerms]:
    """One training step of a side network of its own, on inputs that depend on the seed alone.

    The alignment loss is made of a `fraction` of the batch; `lisa_skipped` is a step of a LISA
    training that has none.
    """
    taps = list(config.taps) if variant != "plain" else []
    side_network = backbone.new_side_network(
        injection=config.injection, taps=taps, seed=config.seed
    )
    dtype = DTYPES[config.mixed_precision]
    use_attention(config.attention, (backbone.main_network, side_network), dtype, training=True)
    trained = list(side_network.parameters())
    lisa = None
    if variant != "plain":
        points = side_network.tap_points
        decoder = TapDecoders(
            {tap: new_decoder(points[tap], backbone.latent_channels) for tap in taps}
        ).to(backbone.device)
        trained += decoder.parameters()
        if variant != "lisa_skipped":
            lisa = LisaObjective(decoder, taps, 0.2, fraction)
    if variant == "lisa_two_forwards":
        backbone = with_two_forwards(backbone)
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    noised, conditions = _inputs(config, backbone)

    def step() -> LossTerms:
        with torch.autocast(backbone.device.type, dtype, enabled=dtype != torch.float32):
            terms = training_losses(backbone, side_network, noised, conditions, lisa)
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return terms

    return step


def format_costs(costs: StepCosts) -> str:
    """The table of seconds, overheads and memory."""
    titles = {
        "plain": "plain",
        "lisa": "LISA, shared encoder",
        "lisa_two_forwards": "LISA, second forward",
    }
    rows = [
        [
            titles[variant],
            f"{costs.seconds[variant]:.4f}",
            "" if variant == "plain" else f"{costs.overhead_pct(variant):+.1f} %",
            f"{costs.peak_mb[variant]:.0f}",
        ]
        for variant in VARIANTS
    ]
    return format_table(["training step", "seconds", "overhead", "peak MiB"], rows)


def _inputs(
    config: StepBenchmarkConfig, backbone: VideoBackbone
) -> tuple[NoisedLatents, Conditions]:
    generator = torch.Generator().manual_seed(config.seed)
    batch, frames, (width, height) = config.batch_size, config.frames, config.size
    factor, device = backbone.vae_scale_factor, backbone.device
    latent_frames = backbone.latent_frames(frames)
    latents, noise = (
        torch.randn(
            (batch, backbone.latent_channels, latent_frames, height // factor, width // factor),
            generator=generator,
        ).to(device)
        for _ in range(2)
    )
    poses = torch.rand((batch, frames, 3, height, width), generator=generator)
    conditions = Conditions(
        text=backbone.encode_text(["a person walks"] * batch),
        pose_frames=poses.to(device),
        frame_weights=torch.ones(batch, latent_frames, device=device),
    )
    timesteps = backbone.sample_timesteps(batch, generator)
    return noise_latents(backbone, latents, noise, timesteps), conditions


def load_on_device(config: StepBenchmarkConfig) -> VideoBackbone:
    """The backbone in the arithmetic and on the device asked for."""
    backbone = open_backbone(config.backbone, DTYPES[config.mixed_precision])
    return backbone.to(chosen_device(config.device))

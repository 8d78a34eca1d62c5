"""What control costs per denoising step, against the backbone alone.

Whole generations of one clip take turns in one run, decoding left out: with the backbone alone, with
control at every step, in the first half of the steps only, and with the side network run once for
both halves of guidance. Poses are encoded once in a generation, and their time is in it.

Shapes: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lisa_video.attention import use_attention
from lisa_video.backbones import load_side_network
from lisa_video.benchmarks.generation_config import GenerationBenchmarkConfig
from lisa_video.benchmarks.measure import chosen_device, interleaved_seconds, paired_ratios
from lisa_video.errors import UserError
from lisa_video.injection import chosen_points
from lisa_video.loading import cast
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.reports import check_new_file, format_table, package_versions, write_json
from lisa_video.training.setup import open_backbone

ALONE = "backbone alone"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    ALONE: {"control_scale": 0.0},
    "control": {},
    "control, first half": {"control_end": 0.5},
    "control, shared by guidance": {"share_control": True},
}


@dataclass(frozen=True)
class GenerationCosts:
    """Of each variant."""

    step_seconds: dict[str, float]
    """Fastest generation, divided by its steps."""
    ratios: dict[str, float]
    """Median over the rounds of the time in terms of that of the backbone alone."""

    def overhead_pct(self, variant: str) -> float:
        """Time beyond the backbone alone, in percent of it."""
        return 100 * (self.ratios[variant] - 1)

    def to_json(self) -> dict[str, Any]:
        return {
            "step_s": self.step_seconds,
            "overhead_pct": {name: self.overhead_pct(name) for name in VARIANTS if name != ALONE},
        }


def check(config: GenerationBenchmarkConfig) -> None:
    """Raises UserError for the output file, the device, the networks or the size."""
    if config.json is not None:
        check_new_file(config.json)
    if config.steps % 2:
        raise UserError(
            f"steps={config.steps}: must be even, as control is limited to half of them"
        )
    backbone = load_pipeline(config).backbone
    backbone.check_frames(config.frames)
    backbone.check_size(config.size)


def run(config: GenerationBenchmarkConfig) -> None:
    """Measure, print the table and write the JSON file."""
    costs = measure_costs(config)
    print(format_costs(costs, config.target))
    device = chosen_device(config.device)
    print(
        f"one clip of {config.frames} frames, {config.size[0]}x{config.size[1]} pixels, guidance "
        f"{config.guidance_scale:g}, {config.steps} steps, on {device.type}; {config.repeats} "
        "rounds"
    )
    if config.json is not None:
        details = {"device": device.type, "versions": package_versions("torch", "diffusers")}
        write_json(config.json, costs.to_json() | details)


def measure_costs(config: GenerationBenchmarkConfig) -> GenerationCosts:
    """Whole generations in turn."""
    if config.threads:
        torch.set_num_threads(config.threads)
    generations = build_generations(config, load_pipeline(config))
    device = chosen_device(config.device)
    seconds = interleaved_seconds(generations, config.repeats, config.warm_up, device)
    fastest = {name: min(values) / config.steps for name, values in seconds.items()}
    return GenerationCosts(fastest, paired_ratios(seconds, ALONE))


def build_generations(
    config: GenerationBenchmarkConfig, pipeline: PoseToVideoPipeline
) -> dict[str, Callable[[], object]]:
    """A generation of each variant, up to its latents."""
    width, height = config.size
    generator = torch.Generator().manual_seed(0)
    pose_frames = torch.rand(1, config.frames, 3, height, width, generator=generator)

    def generation(settings: Mapping[str, Any]) -> Callable[[], object]:
        return lambda: pipeline(
            "a person walks",
            pose_frames,
            num_inference_steps=config.steps,
            guidance_scale=config.guidance_scale,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            **settings,
        )

    return {name: generation(settings) for name, settings in VARIANTS.items()}


def load_pipeline(config: GenerationBenchmarkConfig) -> PoseToVideoPipeline:
    """The networks, placed; UserError where they do not fit."""
    backbone = open_backbone(config.backbone, getattr(torch, config.dtype))
    if config.side_network is None:
        chosen_points(config.injection, backbone.injection_points)
        side_network = backbone.new_side_network(injection=config.injection)
    else:
        side_network = load_side_network(config.side_network)
    cast(side_network.eval(), backbone.dtype)
    networks = (backbone.main_network, side_network)
    use_attention(config.attention, networks, backbone.dtype, training=False)
    pipeline = PoseToVideoPipeline.from_backbone(backbone, side_network)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(chosen_device(config.device))


def format_costs(costs: GenerationCosts, target: float) -> str:
    """The table of seconds, overheads and what they were to be."""
    targets = {"control": target, "control, first half": target / 2}
    rows = [
        [
            name,
            f"{costs.step_seconds[name]:.4f}",
            "" if name == ALONE else f"{costs.overhead_pct(name):+.1f} %",
            f"{targets[name]:+.1f} %" if name in targets else "",
        ]
        for name in VARIANTS
    ]
    return format_table(["denoising step", "seconds", "overhead", "at most"], rows)

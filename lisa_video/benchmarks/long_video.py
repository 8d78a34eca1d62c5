"""What a long video costs and loses: its memory against that of two windows, how much it flickers
at its seams, and how well it follows poses against clips of one window.

Memory is given twice. What the process has held includes what the C library's allocator keeps of
freed blocks, which differs by tens of MiB from run to run; what torch's allocator has given out
does not, and shows whether the peak depends on the length.

The short clips are made of the same driver, window by window, each from noise of its own. Put one
after the other, they show what seams without any plan look like.

Shapes: F frames, H W pixels; frames are uint8 RGB.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lisa_video.backbones import load_side_network
from lisa_video.benchmarks.generation_config import LongVideoBenchmarkConfig
from lisa_video.benchmarks.measure import chosen_device, in_fresh_processes, quiet_profiler
from lisa_video.detectors import build_detector, check_detector
from lisa_video.evaluation import score_clips
from lisa_video.hardware import MIB, peak_memory_mb
from lisa_video.long_video.seams import SeamFlicker, frame_changes, seam_flicker
from lisa_video.memory.measured import peak_allocated
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.pipeline.request import fitting_frames, window_plan
from lisa_video.poses import PoseSequence
from lisa_video.poses.framing import framed
from lisa_video.reports import check_new_file, format_table, json_number, write_json
from lisa_video.training.setup import open_backbone
from lisa_video.video import write_video

MEMORY_STEPS = 2
"""Later steps of a generation hold what the first ones held."""
LATENT_COPIES = 3
"""Of the whole video: a step holds its latents, scaled, and their prediction; decoding, as many."""
SPARE = 1.01
"""What the allocated peak may be over that of two windows: decoded chunks differ in length."""


@dataclass(frozen=True)
class LongVideoCosts:
    """Of one video."""

    peak_mb: dict[str, float]
    """MiB by length: of a process that generates and writes it, or allocated on CUDA."""
    allocated_mb: dict[str, float]
    """MiB by length that torch's allocator gave out for it, beside the networks."""
    latents_mb: dict[str, float]
    """MiB by length of the latents, float32."""
    seams: SeamFlicker
    """At the seams of the last step."""
    cuts: SeamFlicker
    """Of the short clips, where one follows on another."""
    pck: dict[str, float] | None
    """PCK@0.1 of the long video and of the short clips; None without a side network."""

    def to_json(self) -> dict[str, Any]:
        return {
            "peak_mb": self.peak_mb,
            "allocated_mb": self.allocated_mb,
            "latents_mb": self.latents_mb,
            "seam_flicker": json_number(self.seams.ratio),
            "cut_flicker": json_number(self.cuts.ratio),
            "pck": self.pck,
        }


def check(config: LongVideoBenchmarkConfig) -> None:
    """Raises UserError for the output file, the device, the networks, the poses or the windows."""
    if config.json is not None:
        check_new_file(config.json)
    check_detector(config.detector)
    driver(config, config.frames)
    backbone = load_pipeline(config).backbone
    backbone.check_size(config.size)
    window_plan(backbone, fitting_frames(backbone, config.frames, config.window), config.window)


def run(config: LongVideoBenchmarkConfig) -> None:
    """Measure, print the table and write the JSON file."""
    costs = measure_costs(config)
    print(format_costs(costs, config))
    if config.json is not None:
        write_json(config.json, costs.to_json() | {"frames": config.frames})


def measure_costs(config: LongVideoBenchmarkConfig) -> LongVideoCosts:
    """Memory of each length in a process of its own, then the videos in this one."""
    lengths = [str(two_windows(config)), str(config.frames)]
    quiet_profiler()
    peak, allocated = (
        in_fresh_processes(partial(measure, config), lengths, __name__)
        for measure in (measure_peak_mb, measure_allocated_mb)
    )
    _set_threads(config)
    pipeline, poses = load_pipeline(config), driver(config, config.frames)
    long = np.stack(list(generated(config, pipeline, poses, config.seed)))
    short = list(_short_clips(config, pipeline, poses))
    clips = np.concatenate([clip for clip, _ in short])
    starts = range(0, len(clips), config.window.frames)
    step = pipeline.backbone.frames_per_latent
    inner = [start + place for start in starts for place in range(1, config.window.frames, step)]
    return LongVideoCosts(
        peak,
        allocated,
        {frames: latents_mb(config, pipeline, int(frames)) for frames in lengths},
        seam_flicker(frame_changes(long), last_seams(config, pipeline), range(1, len(long), step)),
        seam_flicker(frame_changes(clips), starts, inner),
        None if config.side_network is None else _adherence(config, (long, poses), short),
    )


def measure_peak_mb(config: LongVideoBenchmarkConfig, frames: str) -> float:
    """Peak memory in MiB of this process, which should have done nothing before."""
    _set_threads(config)
    pipeline, poses = load_pipeline(config), driver(config, int(frames))
    with tempfile.TemporaryDirectory() as folder:
        video = generated(config, pipeline, poses, config.seed, MEMORY_STEPS)
        write_video(Path(folder) / "video.mp4", video, poses.fps)
    return peak_memory_mb(chosen_device(config.device))


def measure_allocated_mb(config: LongVideoBenchmarkConfig, frames: str) -> float:
    """Most MiB that torch's allocator gave out at once for the video, of which no frame is kept."""
    _set_threads(config)
    pipeline, poses = load_pipeline(config), driver(config, int(frames))

    def generate() -> None:
        for _ in generated(config, pipeline, poses, config.seed, MEMORY_STEPS):
            pass

    return peak_allocated(generate, chosen_device(config.device)) / MIB


def generated(
    config: LongVideoBenchmarkConfig,
    pipeline: PoseToVideoPipeline,
    poses: PoseSequence,
    seed: int,
    steps: int | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video that follows `poses`, one by one."""
    return pipeline.stream(
        config.prompt,
        poses,
        width=config.size[0],
        height=config.size[1],
        num_inference_steps=steps or config.steps,
        guidance_scale=config.guidance_scale,
        control_scale=0.0 if config.side_network is None else 1.0,
        window=config.window,
        generator=torch.Generator().manual_seed(seed),
    )


def driver(config: LongVideoBenchmarkConfig, frames: int) -> PoseSequence:
    """The poses, forwards and backwards, in pixels of the video; UserError as `PoseSequence`."""
    poses = PoseSequence.load(config.poses, require_people=True)
    once = [*range(len(poses)), *range(len(poses) - 2, 0, -1)]
    looped = poses.frames([once[index % len(once)] for index in range(frames)])
    return framed(looped, config.size, "fit")


def two_windows(config: LongVideoBenchmarkConfig) -> int:
    """Frames of a video of two windows."""
    return 2 * config.window.frames - config.window.overlap


def latents_mb(
    config: LongVideoBenchmarkConfig, pipeline: PoseToVideoPipeline, frames: int
) -> float:
    """MiB of the latents of so many video frames."""
    backbone = pipeline.backbone
    cells = [side // backbone.vae_scale_factor for side in config.size]
    held = backbone.latent_frames(fitting_frames(backbone, frames, config.window))
    return 4 * backbone.latent_channels * held * math.prod(cells) / MIB


def last_seams(config: LongVideoBenchmarkConfig, pipeline: PoseToVideoPipeline) -> list[int]:
    """Video frames at which a window of the last step begins or has ended."""
    backbone = pipeline.backbone
    padded = fitting_frames(backbone, config.frames, config.window)
    seams = window_plan(backbone, padded, config.window).seams(config.steps - 1)
    per_latent = backbone.frames_per_latent
    return [1 + (seam - 1) * per_latent for seam in seams]


def load_pipeline(config: LongVideoBenchmarkConfig) -> PoseToVideoPipeline:
    """The networks, placed; UserError where they do not fit."""
    backbone = open_backbone(config.backbone)
    side_network = (
        backbone.new_side_network()
        if config.side_network is None
        else load_side_network(config.side_network)
    )
    pipeline = PoseToVideoPipeline.from_backbone(backbone, side_network)
    pipeline.set_progress_bar_config(disable=None)
    return pipeline.to(chosen_device(config.device))


def format_costs(costs: LongVideoCosts, config: LongVideoBenchmarkConfig) -> str:
    """What was measured, and what it was to be."""
    few, many = str(two_windows(config)), str(config.frames)
    peak, allocated, latents = costs.peak_mb, costs.allocated_mb, costs.latents_mb
    allowed = SPARE * allocated[few] + LATENT_COPIES * (latents[many] - latents[few])
    rows = [
        [f"peak MiB, {few} frames", f"{peak[few]:.0f}", ""],
        [f"peak MiB, {many} frames", f"{peak[many]:.0f}", f"{peak[few]:.0f}"],
        [f"  allocated by torch, {few} frames", f"{allocated[few]:.1f}", ""],
        [f"  allocated by torch, {many} frames", f"{allocated[many]:.1f}", f"{allowed:.1f}"],
        ["flicker at seams / elsewhere", f"{costs.seams.ratio:.3f}", "1.100"],
        ["  where short clips meet", f"{costs.cuts.ratio:.3f}", ""],
    ]
    if costs.pck is not None:
        rows += [
            ["PCK@0.1 of short clips", f"{costs.pck['short']:.3f}", ""],
            [
                "PCK@0.1 of the long video",
                f"{costs.pck['long']:.3f}",
                f"{costs.pck['short'] - 0.02:.3f}",
            ],
        ]
    return format_table(["long video", "measured", "to be"], rows)


def _short_clips(
    config: LongVideoBenchmarkConfig, pipeline: PoseToVideoPipeline, poses: PoseSequence
) -> Iterator[tuple[NDArray[np.uint8], PoseSequence]]:
    """The driver cut into windows, and a clip for each."""
    length = config.window.frames
    for number, start in enumerate(range(0, len(poses) - length + 1, length)):
        part = poses.frames(range(start, start + length))
        frames = generated(config, pipeline, part, config.seed + 1 + number)
        yield np.stack(list(frames)), part


def _adherence(
    config: LongVideoBenchmarkConfig,
    long: tuple[NDArray[np.uint8], PoseSequence],
    short: list[tuple[NDArray[np.uint8], PoseSequence]],
) -> dict[str, float]:
    detector = build_detector(config.detector)
    clips = {"long": [long], "short": short}
    return {
        name: score_clips(
            ((str(i), *clip) for i, clip in enumerate(each)), detector
        ).total.metrics()["pck@0.1"]
        for name, each in clips.items()
    }


def _set_threads(config: LongVideoBenchmarkConfig) -> None:
    if config.threads:
        torch.set_num_threads(config.threads)

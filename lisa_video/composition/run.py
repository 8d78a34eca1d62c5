"""Does each control still hold when another one acts beside it?

For every objective and seed the controls are trained apart, from the same start and in the same
data order, and then generate for held-out clips: none of them, each alone, and all together, from
the same noise. Each result is scored for its joints and for its edges.

Shapes: N clips, F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lisa_video.backbones import load_side_network
from lisa_video.backbones.base import VideoBackbone
from lisa_video.comparison.scoring import held_out_clips
from lisa_video.composition.config import Arm, ComposeConfig, arm_config
from lisa_video.conditions import draw_edges
from lisa_video.dataset import collate
from lisa_video.evaluation.held_out import HeldOutClips
from lisa_video.loading import cast
from lisa_video.metrics.edges import edge_scores
from lisa_video.reports import json_number
from lisa_video.side_networks.base import SideNetwork
from lisa_video.training.config import Objective
from lisa_video.training.loop import train
from lisa_video.training.setup import check_training, open_encoder

NONE, ALL = "none", "all"
METRICS = ("pck@0.1", "pck@0.2", "edge_f1")

Scores = Mapping[str, float]
"""Value by the names in `METRICS`."""


@dataclass(frozen=True)
class Composition:
    """What came out, means over the seeds."""

    config: ComposeConfig
    scores: Mapping[tuple[Objective, str], Scores]
    """By objective and what acted: `NONE`, the name of a control, or `ALL`."""
    ceiling: Scores
    """Of the true clips: the most that a score can be expected to reach."""
    examples: Mapping[tuple[Objective, str], NDArray[np.uint8]]
    """The first clip of the first seed, (F, H, W, 3), by the same."""
    truth: NDArray[np.uint8]
    """That clip itself."""

    def to_json(self) -> dict[str, Any]:
        """What `results.json` holds."""
        return {
            "controls": self.config.controls,
            "scales": self.config.scales,
            "steps": self.config.training.steps,
            "seeds": self.config.seeds,
            "clips": self.config.score.clips,
            "detector": self.config.score.detector,
            "ceiling": _json(self.ceiling),
            "scores": {
                objective: {
                    acting: _json(self.scores[objective, acting])
                    for acting in (NONE, *self.config.controls, ALL)
                }
                for objective in self.config.objectives
            },
        }


def check_composition(config: ComposeConfig) -> None:
    """Raise UserError for what can be wrong before the first arm; write nothing."""
    for objective in config.objectives:
        for control in config.controls:
            check_training(arm_config(config, Arm(objective, control, config.seeds[0])))
    held_out_clips(config)


def compose(config: ComposeConfig) -> Composition:
    """Train all arms that are not finished, generate with them, and score."""
    if config.threads:
        torch.set_num_threads(config.threads)
    encoder = open_encoder(config.training)
    for seed in config.seeds:
        for objective in config.objectives:
            for control in config.controls:
                arm = arm_config(config, Arm(objective, control, seed))
                if not (arm.output / "side_network").is_dir():
                    train(arm, encoder=encoder)

    seen = Seen.open(config)
    scored: dict[tuple[Objective, str], list[Scores]] = {}
    examples: dict[tuple[Objective, str], NDArray[np.uint8]] = {}
    pairs = [(seed, objective) for seed in config.seeds for objective in config.objectives]
    for seed, objective in tqdm(pairs, desc="generate and score", unit="arm"):
        networks = _networks(config, encoder.backbone, objective, seed)
        for acting, scales in _scales(config).items():
            clips = seen.clips.generate(
                encoder.backbone, networks, config.score, conditions=seen.conditions, scales=scales
            )
            scored.setdefault((objective, acting), []).append(seen.score(clips))
            examples.setdefault((objective, acting), clips[0])
    truth = np.stack([clip.pixels for clip in seen.clips.clips])
    return Composition(
        config,
        {
            key: {name: mean(each[name] for each in values) for name in METRICS}
            for key, values in scored.items()
        },
        ceiling=seen.score(truth),
        examples=examples,
        truth=truth[0],
    )


@dataclass(frozen=True)
class Seen:
    """The held-out clips with every kind of condition."""

    clips: HeldOutClips
    conditions: Sequence[Tensor]
    """(N, F, 3, H, W) in [0, 1] for each control."""
    edge_tolerance: int

    @classmethod
    def open(cls, config: ComposeConfig) -> Seen:
        """Raises UserError as `held_out_clips`."""
        conditions = [
            collate(held_out_clips(config, condition=kind).clips).pose_frames
            for kind in config.controls
        ]
        return cls(held_out_clips(config), conditions, config.score.edge_tolerance)

    def score(self, generated: NDArray[np.uint8]) -> Scores:
        """Of clips (N, F, H, W, 3), against the joints and the edges of the true ones."""
        poses = self.clips.score(generated).total.metrics()
        asked = np.concatenate([_edges(clip.pixels) for clip in self.clips.clips])
        found = np.concatenate([_edges(clip) for clip in generated])
        edges = edge_scores(asked, found, tolerance=self.edge_tolerance)
        return {**{name: poses[name] for name in METRICS[:2]}, "edge_f1": edges.f1}


def _networks(
    config: ComposeConfig, backbone: VideoBackbone, objective: Objective, seed: int
) -> list[SideNetwork]:
    networks = []
    for control in config.controls:
        folder = arm_config(config, Arm(objective, control, seed)).output
        network = load_side_network(folder / "side_network")
        cast(network, backbone.dtype)
        networks.append(network.to(backbone.device))
    return networks


def _scales(config: ComposeConfig) -> dict[str, list[float]]:
    """Control scales of everything that is compared. A control alone acts at its full scale."""
    alone: dict[str, list[float]] = {
        control: [float(other == control) for other in config.controls]
        for control in config.controls
    }
    return {NONE: [0.0] * len(config.controls), **alone, ALL: config.scales}


def _edges(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return draw_edges(frames)[:, 0] > 0


def _json(scores: Scores) -> dict[str, float | None]:
    return {name: json_number(value) for name, value in scores.items()}

"""FVD of what finished arms generate, against the held-out clips.

Shape legend: N clips, F frames, H W pixels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lisa_video.backbones import load_side_network
from lisa_video.backbones.base import VideoBackbone
from lisa_video.comparison.config import CompareConfig
from lisa_video.comparison.scoring import held_out_clips
from lisa_video.evaluation.held_out import HeldOutClips
from lisa_video.metrics.extractors import FeatureExtractor, build_extractor, distance_name
from lisa_video.metrics.fvd import features_of_clips, frechet_of_features
from lisa_video.metrics.presets import fvd_preset
from lisa_video.reports import replace_text

_AT_ONCE = 8


@dataclass(frozen=True)
class ArmFvd:
    """One arm's distance; `name` says of which network."""

    name: str
    value: float
    protocol: dict[str, str | int]
    """What has to be equal for two values to be compared."""


class FidelityScorer:
    """Generates clips with finished side networks, and measures their distance to the real ones.

    Raises UserError where the preset or network is unknown, the network wants longer clips, or the
    frames do not suit the backbone.
    """

    def __init__(self, config: CompareConfig, backbone: VideoBackbone) -> None:
        settings = config.fvd
        backbone.check_frames(settings.frames, "fvd.frames")
        self.config, self.backbone = config, backbone
        self.preset = fvd_preset(settings.preset)
        self.extractor: FeatureExtractor = build_extractor(settings.network, self.preset)
        self.name = distance_name("FVD", self.extractor)
        self.held_out = held_out_clips(config, count=settings.clips, frames=settings.frames)
        real = np.stack([clip.pixels for clip in self.held_out.clips])
        self.real = features_of_clips(real, self.extractor, _AT_ONCE)
        score = config.score
        self.protocol: dict[str, str | int] = {
            "preset": settings.preset,
            "clips": settings.clips,
            "frames": settings.frames,
            "network_sha256": self.extractor.sha256,
            "sampling": f"{score.inference_steps} steps, guidance {score.guidance_scale:g}, "
            f"seed {score.seed}",
        }

    def measure(self, folder: Path) -> ArmFvd:
        """The distance of the arm in `folder`; kept there, and read back the next time."""
        path = folder / "fvd.json"
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["protocol"] == self.protocol:
                return ArmFvd(kept["name"], kept["value"], kept["protocol"])
        side = load_side_network(folder / "side_network").to(self.backbone.device)
        clips = self.held_out.clips
        generated = np.concatenate(
            [
                HeldOutClips(clips[start : start + _AT_ONCE], self.held_out.detector).generate(
                    self.backbone, side, self.config.score
                )
                for start in range(0, len(clips), _AT_ONCE)
            ]
        )
        features = features_of_clips(generated, self.extractor, _AT_ONCE)
        distance = frechet_of_features(self.real, features, preset=self.preset, name=self.name)
        measured = ArmFvd(self.name, distance.value, self.protocol)
        values = {"name": measured.name, "value": measured.value, "protocol": self.protocol}
        replace_text(path, json.dumps(values, indent=2) + "\n")
        return measured

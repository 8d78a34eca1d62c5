"""Validation while training: a few held-out clips generated, scored and shown.

Every process generates its share with its own copy of the network, so that none waits longer than
for the others' share; the main process scores, and writes the videos.

Shapes: N clips, M of one process, F video frames, H W pixels.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from lisa_video.backbones.base import VideoBackbone
from lisa_video.dataset import Clip
from lisa_video.detectors import build_detector, check_detector
from lisa_video.errors import UserError
from lisa_video.evaluation import PoseScores
from lisa_video.evaluation.held_out import HeldOutClips
from lisa_video.gallery import side_by_side
from lisa_video.side_networks.base import SideNetwork
from lisa_video.training.checkpoint import replace_folder
from lisa_video.training.config import TrainConfig
from lisa_video.training.sources import Sources, open_held_out
from lisa_video.training.trackers import LabelledVideo
from lisa_video.video import write_video

FOLDER = "validation"
METRICS = ("pck@0.1", "pck@0.2", "keypoint_distance")
_HEIGHTS = (128, 256)  # pixels that panels are at least and at most high


@dataclass(frozen=True)
class Validation:
    """What one validation found."""

    scores: PoseScores
    """Of the generated clips, against the poses asked for."""
    ceiling: PoseScores
    """Of the true clips."""
    videos: list[LabelledVideo]
    seconds: float
    """From the first sampler step to the last written video."""

    def values(self) -> dict[str, float]:
        """By the names in the log; NaN for a distance where no joint was found."""
        scores, ceiling = self.scores.total.metrics(), self.ceiling.total.metrics()
        return {
            **{f"validation/{name}": scores[name] for name in METRICS},
            **{f"validation/ceiling_{name}": ceiling[name] for name in METRICS},
            "validation/seconds": self.seconds,
        }


def check_validation(config: TrainConfig) -> None:
    """Raise UserError where the detector is unknown or cannot be loaded."""
    if config.validation.every:
        check_detector(config.validation.detector)
        build_detector(config.validation.detector, weights=config.validation.detector_weights)


def build_validator(
    config: TrainConfig, backbone: VideoBackbone, sources: Sources, accelerator: Accelerator
) -> Validator | None:
    """The validation of a run, in each of its processes; None where it has none.

    Raises UserError as `check_validation`, and where the split has too few clips or their videos
    cannot be read.
    """
    settings = config.validation
    if not settings.every:
        return None
    dataset = open_held_out(config, backbone, sources.packed)
    if len(dataset) < settings.clips:
        raise UserError(
            f"validation.clips={settings.clips}: {dataset.root} has {len(dataset)} clips in split "
            f"'{dataset.split}'; lower it, or add clips"
        )
    clips = [dataset.clip(index, 0) for index in range(settings.clips)]
    detector = build_detector(settings.detector, weights=settings.detector_weights)
    return Validator(config, backbone, HeldOutClips(clips, detector), accelerator)


class Validator:
    """Generates for the same clips, from the same noise, at every validation of a run."""

    def __init__(
        self,
        config: TrainConfig,
        backbone: VideoBackbone,
        held_out: HeldOutClips,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.settings = config, config.validation
        self.backbone, self.held_out, self.accelerator = backbone, held_out, accelerator
        self._ceiling: PoseScores | None = None

    def due(self, step: int) -> bool:
        """Whether there is a validation after `step`."""
        return step % self.settings.every == 0 or step == self.config.steps

    def at(self, step: int, side: SideNetwork) -> Validation | None:
        """What the network is worth after `step`; None where nothing is due, and in all processes
        but the main one. All processes call it alike; no global random state is changed."""
        if not self.due(step):
            return None
        started = time.perf_counter()
        with random_states_kept(self.accelerator.device), self.accelerator.autocast():
            generated = self._generate(side)
            if not self.accelerator.is_main_process:
                return None
            if self._ceiling is None:
                self._ceiling = self.held_out.ceiling()
            scores = self.held_out.score(generated)
            videos = write_videos(
                self.config.output / FOLDER / f"step_{step:08d}",
                self.held_out.clips[: self.settings.videos],
                generated,
            )
        return Validation(scores, self._ceiling, videos, time.perf_counter() - started)

    def _generate(self, side: SideNetwork) -> NDArray[np.uint8]:
        """All clips, in every process: (N, F, H, W, 3)."""
        share = self._share()
        at_once = self.config.data.batch_size
        parts = [
            self.held_out.generate(
                self.backbone, side, self.settings, places=share[first : first + at_once]
            )
            for first in range(0, len(share), at_once)
        ]
        own = torch.from_numpy(np.concatenate(parts)).to(self.accelerator.device)
        everyone: NDArray[np.uint8] = self.accelerator.gather(own).cpu().numpy()
        return everyone[: len(self.held_out.clips)]

    def _share(self) -> list[int]:
        """Places of this process's clips: as many in each process, the first ones again at the end
        where they do not divide."""
        clips, processes = len(self.held_out.clips), self.accelerator.num_processes
        each = -(-clips // processes)
        first = each * self.accelerator.process_index
        return [place % clips for place in range(first, first + each)]


def write_videos(
    folder: Path, clips: list[Clip], generated: NDArray[np.uint8]
) -> list[LabelledVideo]:
    """Poses, truth and what was generated, (N, F, H, W, 3), side by side: an mp4 for each clip, in
    a folder that appears whole and takes the place of an earlier one."""
    videos = []
    for place, clip in enumerate(clips):
        height = int(np.clip(clip.pixels.shape[1], *_HEIGHTS))
        panels = {
            "pose": np.moveaxis(clip.pose_frames, 1, -1),
            "truth": clip.pixels,
            "generated": generated[place],
        }
        # A clip's id may hold what no file name can.
        name = f"{place:02d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', clip.id)[:64]}"
        frames = side_by_side(panels, height)
        videos.append(LabelledVideo(name, folder / f"{name}.mp4", frames, clip.poses.fps))

    def write(temporary: Path) -> None:
        for video in videos:
            write_video(temporary / video.path.name, video.frames, video.fps)

    if videos:
        replace_folder(folder, write)
    return videos


@contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """Leave the global generators of Python, NumPy and torch, on `device` too, as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)

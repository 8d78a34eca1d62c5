"""Validation while training: a few held-out clips generated, scored and shown.

Every process generates its share with its own copy of the network, so that none waits longer than
for the others' share; the main process scores, and writes the videos.

Shapes: N clips, F video frames, H W pixels.
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
from einops import rearrange
from numpy.typing import NDArray

from lisa_video.backbones.base import VideoBackbone
from lisa_video.caching.clips import EncodedClip, EncodedClips
from lisa_video.dataset import Clip, ClipDataset
from lisa_video.detectors import build_detector
from lisa_video.errors import UserError
from lisa_video.evaluation import PoseScores
from lisa_video.evaluation.held_out import HeldOutClips
from lisa_video.gallery import side_by_side
from lisa_video.pipeline.outputs import as_bytes
from lisa_video.pipeline.text import TextStates
from lisa_video.side_networks.base import SideNetwork
from lisa_video.training.agreement import in_main_process
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import TrainConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.folders import replace_folder
from lisa_video.training.run_folder import VIDEOS_FOLDER
from lisa_video.training.sources import Sources, open_held_out
from lisa_video.training.trackers import LabelledVideo
from lisa_video.video import write_video

METRICS = ("pck@0.1", "pck@0.2", "keypoint_distance")
_HEIGHTS = (192, 256)  # pixels that panels are at least and at most high


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


def check_validation(config: TrainConfig, backbone: VideoBackbone, sources: Sources) -> None:
    """Raise UserError where the detector cannot be had, or there are too few clips."""
    settings = config.validation
    if settings.every:
        build_detector(settings.detector, weights=settings.detector_weights)
        _open_dataset(config, backbone, sources)


def build_validator(
    config: TrainConfig, encoder: ClipEncoder, sources: Sources, accelerator: Accelerator
) -> Validator | None:
    """The validation of a run, in each of its processes; None where it has none.

    Raises UserError as `check_validation`, and where a clip cannot be read.
    """
    settings = config.validation
    if not settings.every:
        return None
    detector = build_detector(settings.detector, weights=settings.detector_weights)
    clips, text = _clips_and_text(config, encoder, sources)
    park = encoder.park or sources.encoded
    if park:
        encoder.backbone.park_encoders()
    held_out = HeldOutClips(clips, detector)
    return Validator(config, encoder.backbone, held_out, text, accelerator, park=park)


def _clips_and_text(
    config: TrainConfig, encoder: ClipEncoder, sources: Sources
) -> tuple[list[Clip], TextStates]:
    """The held-out clips and their captions' states, which a cache has where the probe reads them:
    the text encoder is then never loaded. Where there are no videos, the VAE makes the truth."""
    dataset = _open_dataset(config, encoder.backbone, sources)
    places = range(config.validation.clips)
    if not _encoded_by_probe(config, sources):
        clips = [dataset.clip(place, 0) for place in places]
        captions = encoder.text([clip.caption for clip in clips])
        return clips, TextStates(captions, encoder.text([""]).expand_as(captions))
    assert isinstance(sources.probe, EncodedClips)
    encoded = [sources.probe.clip(place, 0) for place in places]
    if _has_videos(sources):
        clips = [dataset.clip(place, 0) for place in places]
    else:
        clips = [_decoded(encoder.backbone, clip) for clip in encoded]
    captions = torch.stack([clip.states for clip in encoded])
    return clips, TextStates(captions, encoded[0].empty_states.expand_as(captions))


def _open_dataset(config: TrainConfig, backbone: VideoBackbone, sources: Sources) -> ClipDataset:
    """UserError where it has too few clips."""
    dataset, clips = open_held_out(config, backbone, sources.packed), config.validation.clips
    if len(dataset) < clips:
        raise UserError(
            f"validation.clips={clips}: {dataset.root} has {len(dataset)} clips in split "
            f"'{dataset.split}'; lower it, or add clips"
        )
    if not (_has_videos(sources) or _encoded_by_probe(config, sources)):
        held = config.probe.clips if config.probe.every else 0
        raise UserError(
            f"validation.clips={clips}: of the packed encodings {held} are of held-out clips, those "
            "of the probe; lower it, or pack with more probe.clips"
        )
    return dataset


def _encoded_by_probe(config: TrainConfig, sources: Sources) -> bool:
    """Whether latents and text states of the clips are at hand."""
    enough = config.validation.clips <= config.probe.clips
    return enough and isinstance(sources.probe, EncodedClips)


def _has_videos(sources: Sources) -> bool:
    return sources.packed is None or sources.packed.packed.index.kind == "clips"


def _decoded(backbone: VideoBackbone, clip: EncodedClip) -> Clip:
    """A clip whose pixels are what the VAE makes of its latents."""
    latents = clip.latents[None].to(backbone.device)
    frames = rearrange(backbone.decode_video(latents)[0] / 2 + 0.5, "f c h w -> f h w c")
    return Clip(pixels=as_bytes(frames.cpu().numpy()), **vars(clip.condition))


class Validator:
    """Generates for the same clips, from the same noise, at every validation of a run.

    `text` has the states of the captions, and of as many empty ones. With `park` the VAE is in main
    memory but for the time in which it decodes.
    """

    def __init__(
        self,
        config: TrainConfig,
        backbone: VideoBackbone,
        held_out: HeldOutClips,
        text: TextStates,
        accelerator: Accelerator,
        *,
        park: bool = False,
    ) -> None:
        self.config, self.settings = config, config.validation
        self.backbone, self.held_out, self.text = backbone, held_out, text
        self.accelerator, self.park = accelerator, park
        self._ceiling: PoseScores | None = None

    def due(self, step: int) -> bool:
        """Whether there is a validation after `step`."""
        return step % self.settings.every == 0 or step == self.config.steps

    def at(self, step: int, networks: Networks) -> Validation | None:
        """What the finished networks would be worth after `step`; None where nothing is due, and in
        all processes but the main one. All processes call it alike; no global random state is
        changed."""
        if not self.due(step):
            return None
        started = time.perf_counter()
        with random_states_kept(self.accelerator.device), self.accelerator.autocast():
            with networks.as_finished():
                generated = self._generate(networks.finished)
            return in_main_process(self.accelerator, lambda: self._scored(step, generated, started))

    def _scored(self, step: int, generated: NDArray[np.uint8], started: float) -> Validation:
        if self._ceiling is None:
            self._ceiling = self.held_out.ceiling()
        scores = self.held_out.score(generated)
        videos = write_videos(
            self.config.output / VIDEOS_FOLDER / f"step_{step:08d}",
            self.held_out.clips[: self.settings.videos],
            generated,
            condition=self.config.data.condition,
        )
        return Validation(scores, self._ceiling, videos, time.perf_counter() - started)

    def _generate(self, side: SideNetwork) -> NDArray[np.uint8]:
        """All clips, in every process: (N, F, H, W, 3)."""
        share = self._share()
        at_once = self.config.data.batch_size
        parts = [
            self.held_out.generate(
                self.backbone,
                side,
                self.settings,
                places=share[first : first + at_once],
                text=self.text,
            )
            for first in range(0, len(share), at_once)
        ]
        if self.park:
            self.backbone.park_encoders()
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
    folder: Path, clips: list[Clip], generated: NDArray[np.uint8], *, condition: str = "pose"
) -> list[LabelledVideo]:
    """Condition, truth and what was generated, (N, F, H, W, 3), side by side: an mp4 for each clip,
    in a folder that appears whole and takes the place of an earlier one."""
    videos = []
    for place, clip in enumerate(clips):
        height = int(np.clip(clip.pixels.shape[1], *_HEIGHTS))
        panels = {
            condition: np.moveaxis(clip.pose_frames, 1, -1),
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

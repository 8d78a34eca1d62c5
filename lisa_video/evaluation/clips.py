"""Measures of each generated clip: its poses, its pictures, and its distance to a real clip.

Shapes: F frames, Q people found, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lisa_video.clip_files import find_clips, find_poses, probe_clip, read_clip
from lisa_video.detectors import PoseDetector, build_detector
from lisa_video.errors import UserError
from lisa_video.evaluation.parallel import Failure, Processes
from lisa_video.evaluation.pose_scores import PoseScores, score_keypoints
from lisa_video.evaluation_config import PAIRS, PICTURES, POSE, EvaluateConfig
from lisa_video.metrics.fidelity import Lpips, psnr, ssim
from lisa_video.metrics.motion import flicker, flow_warp_error
from lisa_video.metrics.pose_presets import PoseTally, pose_preset
from lisa_video.poses import PoseSequence
from lisa_video.poses.skeletons import BODY

PICTURE_MEASURES = {"flicker": flicker, "warp_error": flow_warp_error}


@dataclass(frozen=True, eq=False)
class ClipMeasures:
    """What was measured of one clip."""

    tally: PoseTally | None = None
    found: NDArray[np.float32] | None = None
    """(F, Q, 18, 3) keypoints found in it, in its pixels."""
    size: tuple[int, int] = (0, 0)
    """Height and width of the clip, where keypoints were found in it."""
    values: dict[str, float] = field(default_factory=dict)
    """Pictures and pairs by metric."""


@dataclass(frozen=True, eq=False)
class ClipResults:
    """All clips together."""

    clips: dict[str, ClipMeasures]
    """Generated clips by name."""
    pose: PoseScores | None
    ceiling: PoseScores | None
    """The detector's own score on the ground truth."""
    real_pictures: dict[str, float]
    """Means of flicker and warp error over real clips, for comparison."""
    failures: list[Failure]

    def means(self) -> dict[str, float]:
        """Mean over clips of each measure of pictures and pairs; NaNs are left out."""
        return _means([measures.values for measures in self.clips.values()])


def measure_clips(config: EvaluateConfig, processes: Processes) -> ClipResults | None:
    """All metrics of single clips asked for; None where there are none."""
    if not config.asked((*POSE, *PICTURES, *PAIRS)):
        return None
    measurer = _Measurer(config)
    results = processes.map(measurer.measure, measurer.items(), "generated")
    clips, failures = _split(results)
    if not clips:
        raise UserError(f"no generated clip can be scored: {failures[0].reason}")
    pose = ceiling = None
    if config.asked(POSE):
        pose = PoseScores(measurer.detector_name, _tallies(clips))
        if config.ground_truth is not None:
            truth = list(find_clips(config.ground_truth).items())
            truths, wrong = _split(processes.map(measurer.measure_truth, truth, "ground truth"))
            failures += wrong
            if truths:
                ceiling = PoseScores(measurer.detector_name, _tallies(truths))
    real_pictures: dict[str, float] = {}
    if config.asked(PICTURES) and config.real is not None and config.real.is_dir():
        real = list(find_clips(config.real).items())
        seen, wrong = _split(processes.map(measurer.measure_pictures, real, "real pictures"))
        real_pictures = _means([measures.values for measures in seen.values()])
        failures += wrong
    return ClipResults(clips, pose, ceiling, real_pictures, failures)


class _Measurer:
    """Measures clips one by one; what it needs is loaded once."""

    def __init__(self, config: EvaluateConfig) -> None:
        self._config = config
        self._preset = pose_preset(config.pose_preset, config.pose_reference)
        self._clips = find_clips(config.fake) if config.fake is not None else {}
        self._poses = find_poses(config.poses) if config.poses is not None else {}
        self._given = find_poses(config.fake_poses) if config.fake_poses is not None else None
        self._real: dict[str, Path] = {}
        if config.asked(PAIRS):
            assert config.real is not None
            self._real = find_clips(config.real)
        self._detector: PoseDetector | None = None
        if config.asked(POSE) and (self._given is None or config.ground_truth is not None):
            self._detector = build_detector(config.detector, weights=config.weights)
        self._lpips: Lpips | None = None
        if config.lpips_network is not None:
            self._lpips = Lpips(config.lpips_network)

    @property
    def detector_name(self) -> str:
        """Who found the joints of generated clips."""
        if self._given is not None:
            return f"given in {self._config.fake_poses}"
        assert self._detector is not None
        return self._detector.name

    def items(self) -> list[tuple[str, str]]:
        """Names of the generated clips."""
        return [(name, name) for name in self._clips or self._poses]

    def measure(self, name: str) -> ClipMeasures:
        path = self._clips.get(name)
        needs_frames = self._detector is not None or self._config.asked((*PICTURES, *PAIRS))
        frames = read_clip(path) if path is not None and needs_frames else None
        tally = found = None
        size = (0, 0)
        values: dict[str, float] = {}
        if self._config.asked(POSE):
            asked = PoseSequence.load(self._poses[name])
            size = (asked.height, asked.width)
            if frames is not None:
                size = (frames.shape[1], frames.shape[2])
            elif path is not None:
                info = probe_clip(path)
                size = (info.height, info.width)
            found = self._find(name, frames, size)
            tally = score_keypoints(self._label(name), found, asked, size, self._preset)
        if frames is not None:
            values = self._pictures(name, frames) | self._pairs(name, frames)
        return ClipMeasures(tally, found, size, values)

    def measure_truth(self, path: Path) -> ClipMeasures:
        assert self._detector is not None
        frames = read_clip(path)
        asked = PoseSequence.load(self._poses[path.stem if path.is_file() else path.name])
        found = self._detector.detect(frames)[:, :, BODY]
        size = (frames.shape[1], frames.shape[2])
        return ClipMeasures(score_keypoints(str(path), found, asked, size, self._preset))

    def measure_pictures(self, path: Path) -> ClipMeasures:
        return ClipMeasures(values=self._pictures(str(path), read_clip(path)))

    def _label(self, name: str) -> str:
        return str(self._clips.get(name, name))

    def _find(
        self, name: str, frames: NDArray[np.uint8] | None, size: tuple[int, int]
    ) -> NDArray[np.float32]:
        if self._given is not None:
            given = PoseSequence.load(self._given[name])
            return given.resized(size[1], size[0]).body
        assert self._detector is not None and frames is not None
        return self._detector.detect(frames)[:, :, BODY]

    def _pictures(self, name: str, frames: NDArray[np.uint8]) -> dict[str, float]:
        measures = {metric: PICTURE_MEASURES[metric] for metric in self._config.asked(PICTURES)}
        try:
            return {metric: measure(frames) for metric, measure in measures.items()}
        except UserError as error:
            raise UserError(f"{self._label(name)}: {error}") from None

    def _pairs(self, name: str, frames: NDArray[np.uint8]) -> dict[str, float]:
        known = {"psnr": psnr, "ssim": ssim, "lpips": self._lpips}
        measures = {metric: known[metric] for metric in self._config.asked(PAIRS)}
        if not measures:
            return {}
        real = read_clip(self._real[name])
        try:
            return {
                metric: measure(real, frames)
                for metric, measure in measures.items()
                if measure is not None
            }
        except UserError as error:
            raise UserError(f"{self._label(name)}: {error}") from None


def _split(
    results: dict[str, ClipMeasures | Failure],
) -> tuple[dict[str, ClipMeasures], list[Failure]]:
    good = {name: found for name, found in results.items() if isinstance(found, ClipMeasures)}
    return good, [found for found in results.values() if isinstance(found, Failure)]


def _tallies(clips: dict[str, ClipMeasures]) -> dict[str, PoseTally]:
    return {name: found.tally for name, found in clips.items() if found.tally is not None}


def _means(values: list[dict[str, float]]) -> dict[str, float]:
    names = values[0] if values else {}
    columns = {name: [row[name] for row in values if not math.isnan(row[name])] for name in names}
    return {name: float(np.mean(column)) for name, column in columns.items() if column}

"""Do generated clips follow the poses asked for? A detector finds the joints, these are scored.

Shapes: F frames, P people, K keypoints, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lisa_video.clip_files import count_frames, find_clips, find_poses, read_clip
from lisa_video.detectors import PoseDetector, build_detector, check_detector
from lisa_video.errors import UserError
from lisa_video.evaluation_config import EvaluateConfig
from lisa_video.metrics.pose import match_poses, matched_distance, matched_pck
from lisa_video.poses import PoseSequence
from lisa_video.reports import (
    check_new_file,
    format_table,
    json_number,
    package_versions,
    write_json,
)

ScoredClip = tuple[str, NDArray[np.uint8], PoseSequence]
"""Id, frames (F, H, W, 3), and the poses asked for: F frames, any size."""


@dataclass(frozen=True)
class PoseTally:
    """Sums over joints, so that scores of several clips are pooled by adding."""

    frames: int
    """Frames looked at."""
    joints: int
    """Target joints scored."""
    correct_01: int
    """Joints nearer than 0.1 of the longer side of the target person's box."""
    correct_02: int
    """Joints nearer than 0.2 of it."""
    present: int
    """Scored joints that the detector found."""
    distance: float
    """Sum of the found joints' distances, in longer sides of the box."""
    distance_px: float
    """The same sum in pixels of the clip."""

    def __add__(self, other: PoseTally) -> PoseTally:
        sums = asdict(other)
        return PoseTally(**{name: value + sums[name] for name, value in asdict(self).items()})

    def metrics(self) -> dict[str, float]:
        """The measures by name; NaN where no joint was found to measure a distance."""
        return {
            "pck@0.1": self.correct_01 / self.joints,
            "pck@0.2": self.correct_02 / self.joints,
            "keypoint_distance": self.distance / self.present if self.present else math.nan,
            "keypoint_distance_px": self.distance_px / self.present if self.present else math.nan,
            "missing_rate": 1 - self.present / self.joints,
        }


@dataclass(frozen=True)
class PoseScores:
    """Scores of several clips, and of all their joints together."""

    detector: str
    """Name of the detector that looked."""
    clips: dict[str, PoseTally]
    """Tally of each clip by id, in the order given; at least one."""

    @property
    def total(self) -> PoseTally:
        """All clips together: each joint counts the same."""
        first, *others = self.clips.values()
        return sum(others, first)

    def to_json(self) -> dict[str, Any]:
        """Measures of all clips together, counts, and `per_clip`; JSON values, None for NaN."""
        return {
            "detector": self.detector,
            "clips": len(self.clips),
            "frames": self.total.frames,
            "joints": self.total.joints,
            **_json_metrics(self.total),
            "per_clip": {
                name: {"frames": tally.frames, **_json_metrics(tally)}
                for name, tally in self.clips.items()
            },
        }


def score_clips(clips: Iterable[ScoredClip], detector: PoseDetector) -> PoseScores:
    """Detect the poses in each clip and score them against those asked for.

    The poses are rescaled to the size of the clip's frames; joints asked for outside of them cannot
    be seen and are not scored. `clips` may be a generator: one clip is held at a time.

    Raises:
        UserError: no clips, two of one id, a clip with another number of frames than its poses, or
            poses with nobody to score; the message names the clip.
    """
    tallies: dict[str, PoseTally] = {}
    for name, frames, poses in clips:
        if name in tallies:
            raise UserError(f"{name}: two clips have this id")
        tallies[name] = _score_clip(name, frames, poses, detector)
    if not tallies:
        raise UserError("no clips to score")
    return PoseScores(detector.name, tallies)


def check_evaluation(config: EvaluateConfig) -> None:
    """Raises UserError for what can be told without decoding: names, poses, lengths, the output."""
    check_detector(config.detector)
    if config.json is not None:
        check_new_file(config.json)
    for folder in filter(None, (config.videos, config.ground_truth)):
        for clip in _match_files(folder, config.poses):
            poses = PoseSequence.load(clip.poses, require_people=True)
            _check_lengths(str(clip.clip), count_frames(clip.clip), len(poses))


def evaluate(config: EvaluateConfig) -> None:
    """Score the folders, print the table, write the JSON file; errors as in `score_clips`."""
    detector = build_detector(config.detector, weights=config.weights)
    generated = score_clips(_read(config.videos, config.poses, "generated"), detector)
    ceiling = None
    if config.ground_truth is not None:
        ceiling = score_clips(_read(config.ground_truth, config.poses, "ground truth"), detector)

    print(format_scores(generated, ceiling))
    if config.json is not None:
        report = {
            **generated.to_json(),
            "ceiling": ceiling.to_json() if ceiling else None,
            "versions": package_versions("numpy", "torch"),
        }
        write_json(config.json, report)


def format_scores(generated: PoseScores, ceiling: PoseScores | None) -> str:
    """The table of measures, the ceiling beside them, and a line on what was measured."""
    columns = [generated.total.metrics()]
    header = ["", "generated"]
    if ceiling is not None:
        columns.append(ceiling.total.metrics())
        header.append("ceiling")
    rows = [[name, *(_shown(column[name]) for column in columns)] for name in columns[0]]
    counted = f"{len(generated.clips)} clips, {generated.total.frames} frames"
    if ceiling is None:
        note = "ceiling not measured: give --ground_truth a folder of real clips of these poses"
    else:
        note = "the ceiling is this detector's own score on the ground-truth clips"
    return "\n".join(
        [format_table(header, rows), f"detector {generated.detector}, {counted}", note]
    )


@dataclass(frozen=True)
class _ClipFiles:
    """A clip and its poses."""

    name: str
    clip: Path
    poses: Path


def _match_files(clip_folder: Path, pose_folder: Path) -> list[_ClipFiles]:
    """Pair the two folders by name; each clip needs its poses and the other way round."""
    clips, poses = find_clips(clip_folder), find_poses(pose_folder)
    for these, others, other_folder, kind in (
        (clips, poses, pose_folder, "pose file"),
        (poses, clips, clip_folder, "clip"),
    ):
        unmatched = [path for name, path in these.items() if name not in others]
        if unmatched:
            more = f" (nor for {len(unmatched) - 1} more)" if len(unmatched) > 1 else ""
            raise UserError(
                f"{unmatched[0]}: no {kind} of that name in {other_folder}{more}; "
                "clips and poses are matched by name"
            )
    return [_ClipFiles(name, path, poses[name]) for name, path in clips.items()]


def _read(clip_folder: Path, pose_folder: Path, title: str) -> Iterator[ScoredClip]:
    pairs = _match_files(clip_folder, pose_folder)
    for files in tqdm(pairs, desc=title, unit="clip", disable=None):
        yield files.name, read_clip(files.clip), PoseSequence.load(files.poses)


def _score_clip(
    name: str, frames: NDArray[np.uint8], poses: PoseSequence, detector: PoseDetector
) -> PoseTally:
    _check_lengths(name, len(frames), len(poses))
    height, width = frames.shape[1:3]
    target = _inside(poses.resized(width, height))
    try:
        matched = match_poses(detector.detect(frames), target, "max_side")
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    pck_01, pck_02 = matched_pck(matched, 0.1), matched_pck(matched, 0.2)
    distance = matched_distance(matched)
    found = distance.present > 0
    return PoseTally(
        frames=len(frames),
        joints=distance.visible,
        correct_01=pck_01.correct,
        correct_02=pck_02.correct,
        present=distance.present,
        distance=distance.fraction * distance.present if found else 0.0,
        distance_px=distance.pixels * distance.present if found else 0.0,
    )


def _check_lengths(name: str, frames: int, asked: int) -> None:
    if frames != asked:
        raise UserError(f"{name}: the clip has {frames} frames, its poses have {asked}")


def _inside(poses: PoseSequence) -> NDArray[np.float32]:
    """Keypoints (F, P, K, 3), those outside of the frame absent."""
    points = poses.keypoints[..., :2]
    inside = ((points >= 0) & (points <= (poses.width, poses.height))).all(-1, keepdims=True)
    return np.where(inside, poses.keypoints, np.float32(0))


def _json_metrics(tally: PoseTally) -> dict[str, float | None]:
    return {name: json_number(value) for name, value in tally.metrics().items()}


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"

"""Do generated clips follow the poses asked for? A detector finds the joints, these are scored.

Shapes: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lisa_video.detectors.base import PoseDetector
from lisa_video.errors import UserError
from lisa_video.metrics.pose_presets import POSE_PRESETS, PosePreset, PoseTally, tally_poses
from lisa_video.poses import PoseSequence
from lisa_video.poses.skeletons import BODY
from lisa_video.reports import json_number

ScoredClip = tuple[str, NDArray[np.uint8], PoseSequence]
"""Id, frames (F, H, W, 3), and the poses asked for: F frames, any size."""


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
            "preset": self.total.preset.name,
            "clips": len(self.clips),
            "frames": self.total.frames,
            "joints": self.total.joints,
            **_json_metrics(self.total),
            "per_clip": {
                name: {"frames": tally.frames, **_json_metrics(tally)}
                for name, tally in self.clips.items()
            },
        }


def score_clips(
    clips: Iterable[ScoredClip],
    detector: PoseDetector,
    preset: PosePreset = POSE_PRESETS["strict"],
) -> PoseScores:
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
        tallies[name] = score_keypoints(
            name, detector.detect(frames)[:, :, BODY], poses, frames.shape[1:3], preset
        )
    if not tallies:
        raise UserError("no clips to score")
    return PoseScores(detector.name, tallies)


def score_keypoints(
    name: str,
    found: NDArray[np.floating],
    poses: PoseSequence,
    size: tuple[int, int],
    preset: PosePreset,
) -> PoseTally:
    """Score the keypoints found in a clip, (F, Q, 18, 3) in its pixels; arguments as above.

    `size` is the clip's height and width. Errors as in `score_clips`.
    """
    check_lengths(name, len(found), len(poses))
    try:
        return tally_poses(found, asked_keypoints(poses, size), preset)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def asked_keypoints(poses: PoseSequence, size: tuple[int, int]) -> NDArray[np.float32]:
    """Body keypoints asked for, (F, P, 18, 3), in pixels of a clip of this height and width; those
    outside of the frame are absent."""
    height, width = size
    keypoints = poses.resized(width, height).body
    points = keypoints[..., :2]
    inside = ((points >= 0) & (points <= (width, height))).all(-1, keepdims=True)
    return np.where(inside, keypoints, np.float32(0))


def check_lengths(name: str, frames: int, asked: int) -> None:
    """Raises UserError where a clip has another number of frames than its poses."""
    if frames != asked:
        raise UserError(f"{name}: the clip has {frames} frames, its poses have {asked}")


def _json_metrics(tally: PoseTally) -> dict[str, float | None]:
    return {name: json_number(value) for name, value in tally.metrics().items()}

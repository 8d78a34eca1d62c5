"""The pictures of the rendered video, one moment at a time.

Shape legend: F frames, H W pixels; pictures are uint8 RGB (H, W, 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lisa_video.evaluation.overlay import overlaid
from lisa_video.gallery import as_frames, labelled_row, titled_rows
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.rendering.config import DRIVER, SKELETON
from lisa_video.rendering.scores import FollowedPoses
from lisa_video.rendering.spool import ClipSpool

Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame of everything that is shown."""

    shared: dict[str, Picture]
    """Driver and skeleton."""
    generated: dict[str, dict[str, Picture]]
    """Prompt -> label -> frame."""

    def picture(self, side: int) -> Picture:
        """All of it: a row for each prompt."""
        rows = [
            (prompt, labelled_row(self.shared | panels, side))
            for prompt, panels in self.generated.items()
        ]
        return titled_rows(rows)


def moments(
    driver: Iterator[Picture] | None,
    poses: PoseSequence,
    spool: ClipSpool,
    labels: Sequence[str],
    prompts: Sequence[str],
    scores: Mapping[tuple[str, str], FollowedPoses],
    side: int,
) -> Iterator[Moment]:
    """One moment after the other; a frame of each clip is held at a time.

    Args:
        driver: frames of the driving video, as many as `poses`, or None without a video.
        poses: as the clips were asked to follow them, in pixels of the clips.
        spool: the clips.
        labels: of the checkpoints.
        prompts: of the clips.
        scores: by label and prompt; those that are there are drawn over the clip.
        side: height of the panels in pixels.
    """
    for number in range(len(poses)):
        shared = {} if driver is None else {DRIVER: next(driver)}
        shared[SKELETON] = skeleton_picture(poses, number, side)
        generated = {
            prompt: dict(
                _panel(label, spool.frame(label, prompt, number), scores, prompt, number, side)
                for label in labels
            )
            for prompt in prompts
        }
        yield Moment(shared, generated)


def skeleton_picture(poses: PoseSequence, number: int, side: int) -> Picture:
    """The drawn pose of one frame, `side` pixels high."""
    size = (max(1, round(poses.width * side / poses.height)), side)
    keypoints = poses.keypoints[number : number + 1]
    return as_frames(draw_pose_frames(keypoints, (poses.width, poses.height), size))[0]


def _panel(
    label: str,
    frame: Picture,
    scores: Mapping[tuple[str, str], FollowedPoses],
    prompt: str,
    number: int,
    side: int,
) -> tuple[str, Picture]:
    """Label and picture of one clip at one moment."""
    score = scores.get((label, prompt))
    if score is None:
        return label, frame
    value = score.per_frame[number]
    text = "–" if math.isnan(value) else f"{value:.2f}"
    return f"{label}  PCK {text}", overlaid(frame, score.asked[number], score.found[number], side)

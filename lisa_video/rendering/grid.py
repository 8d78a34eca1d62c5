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

    number: int
    """Of the frame, counted from 0."""
    shared: dict[str, Picture]
    """Driver and skeleton."""
    generated: dict[str, dict[str, Picture]]
    """Prompt -> label -> frame."""


def moments(
    driver: Iterator[Picture] | None,
    poses: PoseSequence,
    spool: ClipSpool,
    labels: Sequence[str],
    prompts: Sequence[str],
    side: int,
) -> Iterator[Moment]:
    """One moment after the other; a frame of each clip is held at a time.

    Args:
        driver: frames of the driving video, as many as `poses`, or None without a video.
        poses: as the clips were asked to follow them, in pixels of the clips.
        spool: the clips.
        labels: of the checkpoints.
        prompts: of the clips.
        side: height of the skeletons in pixels.
    """
    for number in range(len(poses)):
        shared = {} if driver is None else {DRIVER: next(driver)}
        shared[SKELETON] = skeleton_picture(poses, number, side)
        generated = {
            prompt: {label: spool.clip(label, prompt).frame(number) for label in labels}
            for prompt in prompts
        }
        yield Moment(number, shared, generated)


def grid_picture(
    moment: Moment, scores: Mapping[tuple[str, str], FollowedPoses], side: int
) -> Picture:
    """A row for each prompt; panels are `side` pixels high. Scores, by label and prompt, are drawn
    over the clips that have one."""
    rows = []
    for prompt, frames in moment.generated.items():
        panels = [
            _panel(label, frame, scores.get((label, prompt)), moment.number, side)
            for label, frame in frames.items()
        ]
        rows.append((prompt, labelled_row(moment.shared | dict(panels), side)))
    return titled_rows(rows)


def skeleton_picture(poses: PoseSequence, number: int, side: int) -> Picture:
    """The drawn pose of one frame, `side` pixels high."""
    size = (max(1, round(poses.width * side / poses.height)), side)
    keypoints = poses.keypoints[number : number + 1]
    return as_frames(draw_pose_frames(keypoints, (poses.width, poses.height), size))[0]


def _panel(
    label: str, frame: Picture, score: FollowedPoses | None, number: int, side: int
) -> tuple[str, Picture]:
    """Label and picture of one clip at one moment."""
    if score is None:
        return label, frame
    value = score.per_frame[number]
    text = "--" if math.isnan(value) else f"{value:.2f}"
    return f"{label}  PCK {text}", overlaid(frame, score.asked[number], score.found[number], side)

"""What each side network is shown of a driver: its poses, a part of them, or edges of its video.

Shapes: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lisa_video.condition_config import ConditionKind
from lisa_video.conditions import draw_edges, reads_video, subset
from lisa_video.driving_source import video_indices
from lisa_video.errors import UserError
from lisa_video.generation_config import DrivingConfig
from lisa_video.poses import PoseSequence
from lisa_video.poses.framing import Window, framed, window_of
from lisa_video.video import iter_frames_at


def check_conditions(driving: DrivingConfig, kinds: Sequence[ConditionKind]) -> None:
    """Raises UserError where the driver cannot show one of these kinds, as far as that can be told
    before detecting."""
    drawn = [kind for kind in kinds if not reads_video(kind)]
    for kind in kinds:
        if reads_video(kind):
            _check_video(driving, kind)
    if drawn and driving.poses is not None:
        poses = PoseSequence.load(driving.poses)
        for kind in drawn:
            subset(kind, poses)


def driver_conditions(
    driving: DrivingConfig,
    kinds: Sequence[ConditionKind],
    poses: PoseSequence,
    size: tuple[int, int],
) -> list[PoseSequence | Tensor]:
    """The condition of each kind, as a pipeline takes it.

    Args:
        driving: names the video, where edges are among the kinds.
        kinds: one for each side network.
        poses: those to follow, in pixels of the driver.
        size: width and height of the result in pixels.

    Returns:
        Pose sequences in pixels of the result, and for edges uint8 (1, F, 3, H, W).

    Raises:
        UserError: as `check_conditions`.
    """
    conditions: list[PoseSequence | Tensor] = []
    for kind in kinds:
        if reads_video(kind):
            _check_video(driving, kind)
            window = window_of(poses, size, driving.framing)
            conditions.append(_edges(driving, window, size))
        else:
            conditions.append(subset(kind, framed(poses, size, driving.framing)))
    return conditions


def framed_picture(
    picture: NDArray[np.uint8], window: Window, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The part of a picture (h, w, 3) that lies in the window, to the pixel, in the width and height
    of `size`. Beyond the picture its border goes on, so that it has no edge of its own there."""
    left, top = floor(window.left + 0.5), floor(window.top + 0.5)
    right = max(left + 1, ceil(window.left + window.width - 0.5))
    bottom = max(top + 1, ceil(window.top + window.height - 0.5))
    height, width = picture.shape[:2]
    rows = np.arange(top, bottom).clip(0, height - 1)
    columns = np.arange(left, right).clip(0, width - 1)
    part = picture[rows[:, None], columns]
    smaller = max(size[0] / part.shape[1], size[1] / part.shape[0]) < 1
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    scaled: NDArray[np.uint8] = cv2.resize(part, size, interpolation=how)
    return scaled


def _check_video(driving: DrivingConfig, kind: ConditionKind) -> None:
    """Raises UserError where there are no pixels, or poses that no longer lie on them."""
    if driving.video is None:
        raise UserError(
            f"{driving.poses}: a side network is steered by {kind}, which are seen in a video only; "
            "give driving.video"
        )
    if driving.retarget.wanted:
        raise UserError(
            f"driving.retarget: moves poses, and a side network is steered by {kind} of the video, "
            "which stay the driver's; leave out one of both"
        )


def _edges(driving: DrivingConfig, window: Window, size: tuple[int, int]) -> Tensor:
    """uint8 (1, F, 3, H, W), of which one channel is held."""
    assert driving.video is not None
    indices, _ = video_indices(driving, driving.video)
    frames = iter_frames_at(driving.video, indices)
    edges = [
        draw_edges(framed_picture(frame, window, size)[None])[0, :1].copy() for frame in frames
    ]
    return torch.from_numpy(np.stack(edges))[None].expand(-1, -1, 3, -1, -1)

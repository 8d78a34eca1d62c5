"""How steadily the pictures of a clip follow each other.

Shapes: F frames, H W pixels; frames are uint8 RGB.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError

MIN_SIDE = 16
"""Pixels below which OpenCV finds no flow."""


def flicker(frames: NDArray[np.uint8]) -> float:
    """Mean absolute difference of neighbouring frames, in [0, 1]: 0 is a still picture.

    1 - flicker is the temporal flickering score of VBench (Huang et al. 2024, sec. 3.1), which
    applies it to clips that should stand still. Raises UserError below two frames.
    """
    _check_frames(frames)
    changes = [cv2.absdiff(before, after).mean() for before, after in pairwise(frames)]
    return float(np.mean(changes) / 255)


def flow_warp_error(frames: NDArray[np.uint8]) -> float:
    """Mean squared difference of each frame to the next one warped back by optical flow, where
    nothing is hidden, with pixels in [0, 1] (Lai et al. 2018, arXiv:1808.00449, eq. 11).

    The flow is OpenCV's DIS at its medium preset. A pixel counts as hidden where forward and
    backward flow disagree (Sundaram et al. 2010, eq. 5). NaN where everything is.

    Raises UserError below two frames or `MIN_SIDE` pixels.
    """
    _check_frames(frames)
    if min(frames.shape[1:3]) < MIN_SIDE:
        raise UserError(
            f"optical flow needs frames of at least {MIN_SIDE} pixels, these are "
            f"{frames.shape[2]}x{frames.shape[1]}"
        )
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    squared, seen = 0.0, 0
    for index in range(len(frames) - 1):
        forward = _flow(finder, greys[index], greys[index + 1])
        backward = _flow(finder, greys[index + 1], greys[index])
        visible = consistent(forward, backward)
        difference = frames[index] - _warp(frames[index + 1].astype(np.float32), forward)
        squared += float(np.square(difference / 255).mean(-1)[visible].sum())
        seen += int(visible.sum())
    return squared / seen if seen else float("nan")


def consistent(forward: NDArray[np.float32], backward: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(H, W) where the flow there and back, each (H, W, 2) in pixels, ends near its start:
    |f + b|^2 < 0.01 (|f|^2 + |b|^2) + 0.5, with b read where f leads, and f leads into the frame.
    """
    back = _warp(backward, forward)
    round_trip = np.square(forward + back).sum(-1)
    lengths = np.square(forward).sum(-1) + np.square(back).sum(-1)
    x, y = _destinations(forward)
    height, width = x.shape
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    return inside & (round_trip < 0.01 * lengths + 0.5)


def _flow(
    finder: cv2.DISOpticalFlow, before: cv2.typing.MatLike, after: cv2.typing.MatLike
) -> NDArray[np.float32]:
    """(H, W, 2) in pixels."""
    start = np.zeros((*before.shape, 2), np.float32)
    return np.asarray(finder.calc(before, after, start), np.float32)


def _warp(picture: NDArray[np.float32], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture (H, W, C) read where the flow (H, W, 2) leads."""
    x, y = _destinations(flow)
    warped = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def _destinations(flow: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    return columns + flow[..., 0], rows + flow[..., 1]


def _check_frames(frames: NDArray[np.uint8]) -> None:
    if len(frames) < 2:
        raise UserError(f"motion needs at least 2 frames, there are {len(frames)}")

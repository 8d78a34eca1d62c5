"""Pictures for people: labelled side-by-side videos and contact sheets.

Shape legend: F frames, H W pixels; all pictures are uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP = 4
_BAR = 22
_INK, _PAPER = (24, 24, 28), (246, 246, 244)


def side_by_side(panels: Mapping[str, np.ndarray], side: int = 192) -> np.ndarray:
    """One video of several: each panel under its label.

    Args:
        panels: label -> uint8 (F, H, W, 3); all have the same number of frames, sizes may differ.
        side: height of each panel in the result, in pixels.

    Returns:
        uint8 (F, side + label bar, W', 3).
    """
    assert len({len(frames) for frames in panels.values()}) == 1, "clips of different lengths"
    moments = zip(*panels.values(), strict=True)
    return np.stack(
        [labelled_row(dict(zip(panels, moment, strict=True)), side) for moment in moments]
    )


def labelled_row(panels: Mapping[str, np.ndarray], side: int) -> np.ndarray:
    """One picture of several, uint8 (H, W, 3), each under its label, `side` pixels high."""
    columns = []
    for label, picture in panels.items():
        enlarged = _resize_to_height(picture, side)
        columns.append(np.concatenate([_text_bar(label, enlarged.shape[1]), enlarged]))
    gap = np.full((len(columns[0]), _GAP, 3), _PAPER, dtype=np.uint8)
    spaced = [piece for column in columns for piece in (column, gap)][:-1]
    return np.concatenate(spaced, axis=1)


def titled_rows(rows: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Pictures (H, W, 3) below each other, each under its title; as wide as the widest."""
    width = max(picture.shape[1] for _, picture in rows)
    pieces = []
    for title, picture in rows:
        across = ((0, 0), (0, width - picture.shape[1]), (0, 0))
        padded = np.pad(picture, across, constant_values=_PAPER[0])
        pieces += [_text_bar(title, width), padded]
    return np.concatenate(pieces)


def contact_sheet(
    rows: Sequence[tuple[str, np.ndarray]], *, frames: int = 8, side: int = 96
) -> np.ndarray:
    """One picture of several clips: a label over each row, time from left to right.

    Args:
        rows: label and uint8 (F, H, W, 3) of each row.
        frames: pictures per row, spread evenly over the clip.
        side: height of each picture in pixels.

    Returns:
        uint8 (H', W', 3).
    """
    strips = []
    for label, clip in rows:
        chosen = np.linspace(0, len(clip) - 1, min(frames, len(clip))).round().astype(int)
        pictures = [_resize_to_height(clip[index], side) for index in chosen]
        strip = np.concatenate(pictures, axis=1)
        strips.append(np.concatenate([_text_bar(label, strip.shape[1]), strip]))
    width = max(strip.shape[1] for strip in strips)
    padded = [
        np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=_PAPER[0])
        for strip in strips
    ]
    return np.concatenate(padded)


def as_frames(pose_frames: np.ndarray) -> np.ndarray:
    """Drawn poses, float (F, 3, H, W) in [0, 1] -> uint8 (F, H, W, 3)."""
    return np.round(np.moveaxis(pose_frames, 1, -1) * 255).astype(np.uint8)


def _resize_to_height(frame: np.ndarray, height: int) -> np.ndarray:
    scale = height / frame.shape[0]
    size = (max(1, round(frame.shape[1] * scale)), height)
    # Small generated video is shown pixel for pixel, not smoothed into looking better than it is.
    method = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(frame, size, interpolation=method))


@lru_cache(maxsize=256)
def _text_bar(text: str, width: int) -> np.ndarray:
    picture = Image.new("RGB", (width, _BAR), _PAPER)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    while len(text) > 1 and draw.textlength(text, font) > width - 8:
        text = text[:-2] + "…"
    draw.text((4, 3), text, fill=_INK, font=font)
    return np.asarray(picture)

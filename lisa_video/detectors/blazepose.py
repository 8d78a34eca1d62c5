"""BlazePose (Bazarevsky et al. 2020, arXiv:2006.10204) on its TFLite weights, for one person.

A person detector finds two points, the middle of the hips and a point on the circle around the
whole body, which make a rotated square. A second network finds landmarks within that square, and
the same two points again: the next frame's square follows them, and the detector only runs where
the person is lost. Settings follow MediaPipe's graphs in `modules/pose_landmark`.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from tqdm import tqdm

from lisa_video.detectors.ssd import INPUT_SIZE, anchor_centres, best_person, decode_points
from lisa_video.errors import UserError
from lisa_video.poses.skeletons import from_blazepose33

_LANDMARK_SIZE = 256  # side of the landmark network's input
_LANDMARKS = 33
_CENTRE, _CIRCLE = 33, 34  # the two alignment points, after the landmarks
_MARGIN = 1.25  # the square's side over the circle's diameter
_MIN_PERSON = 0.5  # probability that there is a person, for both networks
_PATCH = 7  # side of the heatmap patch that refines a landmark
_MIN_PEAK = 0.5  # heatmap probability in the patch below which it refines nothing


@dataclass(frozen=True)
class Square:
    """A rotated square of the picture, in pixels of it; `angle` in radians turns it clockwise."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    @classmethod
    def around(cls, frame: NDArray[np.uint8]) -> Square:
        """The smallest upright square that holds the whole frame (H, W, 3)."""
        height, width = frame.shape[:2]
        return cls(width / 2, height / 2, max(width, height))

    @classmethod
    def of_person(cls, hips: NDArray[np.floating], circle: NDArray[np.floating]) -> Square:
        """A person's square from the middle of the hips (2,) and the circle's top (2,)."""
        x, y = (float(value) for value in circle - hips)
        side = 2 * _MARGIN * math.hypot(x, y)
        return cls(float(hips[0]), float(hips[1]), side, angle=math.atan2(x, -y))

    def to_picture(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Points (..., 2) in shares of the square, to pixels of the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        rotation = np.array([[cos, -sin], [sin, cos]])
        moved = (points - 0.5) @ rotation.T * self.side + np.array([self.x, self.y])
        return moved.astype(np.float32)

    def cut(self, frame: NDArray[np.uint8], size: int, border: int) -> NDArray[np.float32]:
        """The square's content, float32 (size, size, 3) in [0, 1].

        `border` says what lies outside the frame (an OpenCV border mode).
        """
        corners = np.array([[0, 0], [1, 0], [0, 1]], dtype=np.float32)
        # OpenCV counts from the first pixel's centre.
        source = self.to_picture(corners) - np.float32(0.5)
        affine = cv2.getAffineTransform(source, corners * np.float32(size) - np.float32(0.5))
        cut = cv2.warpAffine(frame, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
        return cut.astype(np.float32) / np.float32(255)


class BlazePoseDetector:
    """The most prominent person's pose, tracked from frame to frame.

    Confidence is BlazePose's visibility times presence of each joint; 0 in frames without a person.
    There is no smoothing over time.

    Args:
        folder: folder with pose_detection.tflite and pose_landmark_full.tflite.

    Raises:
        UserError: one of the files is missing or not a TFLite network.
    """

    name = "blazepose-full"
    skeleton = "openpose18"

    def __init__(self, folder: Path) -> None:
        self._detection = _Network(folder / "pose_detection.tflite")
        self._landmarks = _Network(folder / "pose_landmark_full.tflite")
        self._anchors = anchor_centres()

    def detect(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (F, H, W, 3) of one video -> float32 (F, 1, 18, 3) in pixels of the frames."""
        progress = tqdm(frames, desc=self.name, unit="frame", leave=False, disable=None)
        return np.stack(list(self.stream(progress)))

    def stream(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Frames (H, W, 3) of one video -> float32 (1, 18, 3) of each."""
        square: Square | None = None
        for frame in frames:
            landmarks, square = self._track(frame, square)
            if landmarks is None:
                landmarks = np.zeros((_LANDMARKS, 3), dtype=np.float32)
            yield from_blazepose33(landmarks[None])

    def _track(
        self, frame: NDArray[np.uint8], square: Square | None
    ) -> tuple[NDArray[np.float32] | None, Square | None]:
        """Landmarks (33, 3) in the last frame's square, or where the detector finds a person."""
        if square is not None:
            landmarks, following = self._find_landmarks(frame, square)
            if landmarks is not None:
                return landmarks, following
        detected = self._find_person(frame)
        return (None, None) if detected is None else self._find_landmarks(frame, detected)

    def _find_person(self, frame: NDArray[np.uint8]) -> Square | None:
        whole = Square.around(frame)
        pixels = whole.cut(frame, INPUT_SIZE, cv2.BORDER_CONSTANT) * 2 - 1
        raw, logits = self._detection(pixels)
        scores = expit(logits[0, :, 0])
        likely = scores > _MIN_PERSON
        if not likely.any():
            return None
        boxes, points = decode_points(raw[0, likely], self._anchors[likely])
        hips, circle = whole.to_picture(best_person(scores[likely], boxes, points))[:2]
        return Square.of_person(hips, circle)

    def _find_landmarks(
        self, frame: NDArray[np.uint8], square: Square
    ) -> tuple[NDArray[np.float32] | None, Square | None]:
        """Landmarks (33, 3) and the next frame's square; two None without a person in there."""
        pixels = square.cut(frame, _LANDMARK_SIZE, cv2.BORDER_REPLICATE)
        raw, person, _, heatmaps, _ = self._landmarks(pixels)
        if person.item() < _MIN_PERSON:
            return None, None
        values = raw.reshape(-1, 5)  # x, y, z in input pixels, visibility and presence logits
        points = (values[:, :2] / _LANDMARK_SIZE).astype(np.float32)
        places = square.to_picture(refine_points(points, heatmaps[0]))
        confidence = expit(values[:_LANDMARKS, 3]) * expit(values[:_LANDMARKS, 4])
        landmarks = np.concatenate([places[:_LANDMARKS], confidence[:, None]], axis=1)
        return landmarks, Square.of_person(places[_CENTRE], places[_CIRCLE])


def refine_points(
    points: NDArray[np.float32], heatmaps: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Move points to the centre of mass of their heatmaps nearby, where these are sure enough.

    Args:
        points: (N, 2), shares of the square; those outside of it stay.
        heatmaps: (h, w, N) logits.

    Returns:
        float32 (N, 2).
    """
    refined = points.copy()
    height, width = heatmaps.shape[:2]
    reach = _PATCH // 2
    columns, rows = np.floor(points * [width, height]).astype(int).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    for index in np.flatnonzero(inside):
        top, left = max(0, rows[index] - reach), max(0, columns[index] - reach)
        below, right = rows[index] + reach + 1, columns[index] + reach + 1
        patch = expit(heatmaps[top:below, left:right, index])
        if patch.max() < _MIN_PEAK:
            continue
        y, x = np.indices(patch.shape)
        centre = np.array([(patch * (x + left)).sum(), (patch * (y + top)).sum()]) / patch.sum()
        refined[index] = centre / [width, height]
    return refined


class _Network:
    """A TFLite network with one picture as input."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        if not path.is_file():
            raise UserError(f"{path}: no such file; this folder should hold BlazePose's weights")
        try:
            self._interpreter = Interpreter(str(path), num_threads=1)
        except ValueError:
            raise UserError(f"{path}: not a TFLite network") from None
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, picture: NDArray[np.float32]) -> list[NDArray[Any]]:
        """All outputs for one picture (H, W, 3), each with a leading axis of 1."""
        self._interpreter.set_tensor(self._input, picture[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]

"""RTMPose and DWPose by rtmlib, for several people.

rtmlib fetches its networks at first use; without a network give a folder with `detector.onnx`
(YOLOX) and `pose.onnx`.

Shapes: F frames, Q people, K keypoints, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lisa_video.errors import UserError
from lisa_video.poses.skeletons import COCO_17, from_coco17

_FAINTEST = 0.3  # score below which rtmlib itself takes a keypoint for absent


class RtmlibDetector:
    """People by a YOLOX detector, the joints of each by a pose network; no tracking.

    Args:
        kind: "rtmpose" finds the body, "dwpose" the whole body, of which the body is kept.
        weights: folder with detector.onnx and pose.onnx; without it rtmlib fetches its own.

    Raises:
        UserError: rtmlib is not installed, a file is missing, or a network cannot be had.
    """

    def __init__(self, kind: Literal["rtmpose", "dwpose"], weights: Path | None) -> None:
        self.name: str = kind
        try:
            import onnxruntime  # noqa: F401
            import rtmlib
        except ImportError:
            raise UserError(
                f"detector '{kind}' needs rtmlib: pip install onnxruntime, then pip install "
                "--no-deps rtmlib (with its dependencies it would replace OpenCV)"
            ) from None
        solution = rtmlib.Body if kind == "rtmpose" else rtmlib.Wholebody
        try:
            self._solution = solution(**_given_networks(weights))
        except OSError as error:
            raise UserError(f"detector '{kind}': its networks cannot be fetched: {error}") from None

    def detect(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (F, H, W, 3) -> float32 (F, Q, 18, 3) in pixels of the frames."""
        progress = tqdm(frames, desc=self.name, unit="frame", leave=False, disable=None)
        bgr = (np.ascontiguousarray(frame[..., ::-1]) for frame in progress)
        return pad_people([people_found(*self._solution(frame)) for frame in bgr])


def people_found(points: NDArray[np.floating], scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """rtmlib's keypoints (Q, K, 2) and scores (Q, K), of which the first 17 are COCO's, -> float32
    (Q, 18, 3) without people who have no sure joint.

    rtmlib counts from the first pixel's centre, and gives a pose of the whole picture where it
    finds nobody.
    """
    body = len(COCO_17)
    confidence = np.clip(scores[:, :body, None], 0, 1)
    confidence = np.where(confidence < _FAINTEST, 0, confidence)
    places = np.where(confidence > 0, points[:, :body] + 0.5, 0)
    people = from_coco17(np.concatenate([places, confidence], axis=-1))
    neck = people[:, 1]
    people[:, 1] = np.where(neck[:, 2:] > 0, neck, 0)  # both shoulders or none
    return people[(people[..., 2] > 0).any(-1)]


def pad_people(frames: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """People of each frame, (Q, 18, 3) with Q of its own, -> (F, Q, 18, 3) with zeros for nobody."""
    most = max((len(people) for people in frames), default=0)
    padded = np.zeros((len(frames), most, 18, 3), np.float32)
    for place, people in zip(padded, frames, strict=True):
        place[: len(people)] = people
    return padded


def _given_networks(folder: Path | None) -> dict[str, Any]:
    """rtmlib's arguments for the networks of a folder; sizes are read from them."""
    if folder is None:
        return {}
    from onnxruntime import InferenceSession

    arguments: dict[str, Any] = {}
    for name, file in (("det", "detector.onnx"), ("pose", "pose.onnx")):
        path = folder / file
        if not path.is_file():
            raise UserError(f"{path}: no such file; the folder should hold rtmlib's networks")
        height, width = InferenceSession(str(path)).get_inputs()[0].shape[2:]
        size = (width, height) if name == "pose" else (height, width)
        arguments |= {name: str(path), f"{name}_input_size": size}
    return arguments

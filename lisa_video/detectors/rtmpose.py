"""RTMPose and DWPose by rtmlib, for several people: their bodies, or also hands and faces.

rtmlib fetches its networks at first use; without a network give a folder with `detector.onnx`
(YOLOX) and `pose.onnx`.

Shapes: F frames, Q people, K = 18 or 128 keypoints, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lisa_video.detectors.base import pad_people
from lisa_video.errors import UserError
from lisa_video.poses.skeletons import BODY, COCO_17, SKELETONS, from_coco17, from_coco_wholebody

_FAINTEST = 0.3  # score below which rtmlib itself takes a keypoint for absent


class RtmlibDetector:
    """People by a YOLOX detector, the joints of each by a pose network; no tracking.

    Args:
        kind: "rtmpose" finds the body, "dwpose" hands and face as well.
        weights: folder with detector.onnx and pose.onnx; without it rtmlib fetches its own.

    Raises:
        UserError: rtmlib is not installed, a file is missing, or a network cannot be had.
    """

    def __init__(self, kind: Literal["rtmpose", "dwpose"], weights: Path | None) -> None:
        self.skeleton = "openpose18" if kind == "rtmpose" else "openpose18_hands_face"
        try:
            import onnxruntime  # noqa: F401
            import rtmlib
        except ImportError:
            raise UserError(
                f"detector '{kind}' needs rtmlib: pip install onnxruntime, then pip install "
                "--no-deps rtmlib (with its dependencies it would replace OpenCV)"
            ) from None
        self.name = f"{kind}-rtmlib-{_installed_version()}"
        solution = rtmlib.Body if kind == "rtmpose" else rtmlib.Wholebody
        try:
            self._solution = solution(**_given_networks(weights))
        except OSError as error:
            raise UserError(f"detector '{kind}': its networks cannot be fetched: {error}") from None

    def detect(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (F, H, W, 3) -> float32 (F, Q, K, 3) in pixels of the frames."""
        progress = tqdm(frames, desc=self.name, unit="frame", leave=False, disable=None)
        return pad_people(list(self.stream(progress)), len(SKELETONS[self.skeleton]))

    def stream(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Frames (H, W, 3) -> float32 (Q, K, 3) of each."""
        for frame in frames:
            yield people_found(*self._solution(np.ascontiguousarray(frame[..., ::-1])))


def people_found(points: NDArray[np.floating], scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """rtmlib's keypoints (Q, K, 2) and scores (Q, K), of COCO or of COCO-WholeBody, -> float32
    (Q, 18, 3) or (Q, 128, 3) without people whose bodies have no sure joint.

    rtmlib counts from the first pixel's centre, and gives a pose of the whole picture where it
    finds nobody.
    """
    confidence = np.clip(scores[..., None], 0, 1)
    confidence = np.where(confidence < _FAINTEST, 0, confidence)
    places = np.where(confidence > 0, points + 0.5, 0)
    convert = from_coco17 if scores.shape[-1] == len(COCO_17) else from_coco_wholebody
    people = convert(np.concatenate([places, confidence], axis=-1))
    neck = people[:, 1]
    people[:, 1] = np.where(neck[:, 2:] > 0, neck, 0)  # both shoulders or none
    return people[(people[:, BODY, 2] > 0).any(-1)]


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


def _installed_version() -> str:
    try:
        return version("rtmlib")
    except PackageNotFoundError:
        return "unknown"

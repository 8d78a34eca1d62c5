"""Which frames of a pose file or a video drive a generation, and the poses in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lisa_video.detectors import build_detector, check_detector
from lisa_video.driver import FittedDriver, check_driver, fit_driver, stream_poses
from lisa_video.errors import UserError
from lisa_video.generation_config import DrivingConfig
from lisa_video.poses import PoseSequence
from lisa_video.video import VideoInfo, iter_frames_at, probe_video


def check_driving(driving: DrivingConfig) -> int:
    """Frames to generate; raises UserError for what can be told of the driver before detecting."""
    check_driver(driving.retarget, driving.detector)
    if driving.video is None:
        return len(driving_poses(driving))
    check_detector(driving.detector)
    return len(video_indices(driving, driving.video)[0])


def driving_poses(driving: DrivingConfig) -> PoseSequence:
    """The poses to follow, in pixels of the source, or of the reference that they are fitted to;
    fps is that of the result.

    Raises UserError where the source cannot be read, is too short, or shows nobody, or more people
    than expected; and as `fit_driver`.
    """
    return fitted_driver(driving).poses


def fitted_driver(
    driving: DrivingConfig, on_frame: Callable[[int, int], None] = lambda done, total: None
) -> FittedDriver:
    """The same with what was done; errors as in `driving_poses`. `on_frame` is called with the number
    of frames that a detector has been given, and that of all."""
    path, poses = _source_poses(driving, on_frame)
    if not poses.keypoints[..., 2].any():
        raise UserError(f"{path}: nobody in the frames chosen, see driving.start and driving.fps")
    poses = replace(poses, fps=driving.fps or poses.fps)
    return fit_driver(
        poses, driving.person, driving.smoothing, driving.retarget, driving.detector, path
    )


def _source_poses(
    driving: DrivingConfig, on_frame: Callable[[int, int], None]
) -> tuple[Path, PoseSequence]:
    """File of the driver, and the poses of everybody in the chosen frames."""
    if driving.poses is not None:
        path, source = driving.poses, PoseSequence.load(driving.poses, require_people=True)
        return path, source.frames(frame_indices(driving, len(source), source.fps, path))
    assert driving.video is not None
    return driving.video, _detected(driving, driving.video, on_frame)


def frame_indices(driving: DrivingConfig, length: int, fps: float, path: Path) -> list[int]:
    """Source frames to follow; raises UserError where the source has too few of them."""
    step = 1.0 if driving.fps is None else fps / driving.fps
    frames = (
        _all_frames(length - driving.start, step) if driving.frames == "all" else driving.frames
    )
    indices = [driving.start + round(index * step) for index in range(frames)]
    if not indices or indices[-1] >= length:
        raise UserError(
            f"{path}: has {length} frames, and {driving.frames} frames from driving.start="
            f"{driving.start} at {driving.fps or fps:g} fps reach to frame "
            f"{indices[-1] if indices else driving.start}"
        )
    return indices


def _all_frames(length: int, step: float) -> int:
    """Most frames, `step` apart, that a source with `length` frames left has."""
    frames = max(0, int((length - 1) / step) + 2)
    while frames and round((frames - 1) * step) >= length:
        frames -= 1
    return frames


def _detected(
    driving: DrivingConfig, path: Path, on_frame: Callable[[int, int], None]
) -> PoseSequence:
    """One frame is held at a time, however long the video is."""
    indices, info = video_indices(driving, path)
    total = len(indices)

    def frames() -> Iterator[NDArray[np.uint8]]:
        source = iter_frames_at(path, indices)
        bar = tqdm(source, total=total, desc="poses", unit="frame", disable=None)
        for done, frame in enumerate(bar, 1):
            on_frame(done, total)
            yield frame

    detector = build_detector(driving.detector)
    return stream_poses(frames(), (info.width, info.height), info.fps, detector)


def video_indices(driving: DrivingConfig, path: Path) -> tuple[list[int], VideoInfo]:
    """Frames of the video to follow, and what the video is."""
    info = probe_video(path)
    return frame_indices(driving, info.frames, info.fps, path), info

"""Poses of one video: read it, detect, check, save, and show what was found.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lisa_video.detectors import PoseDetector, build_detector
from lisa_video.errors import UserError
from lisa_video.extraction_config import ExtractPosesConfig
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.poses.skeletons import SKELETONS
from lisa_video.reports import check_new_file

_PREVIEW_HEIGHT = 320  # pixels of each panel


def check_video(config: ExtractPosesConfig) -> None:
    """Raises UserError for what is wrong before any frame is read; writes nothing."""
    if config.out.suffix != ".npz":
        raise UserError(f"out={config.out}: a pose file ends in .npz")
    check_new_file(config.out)
    if config.preview is not None:
        check_new_file(config.preview)


def extract_video(config: ExtractPosesConfig) -> PoseSequence:
    """Find poses in the video, write the pose file and the preview asked for.

    Returns:
        The poses written.

    Raises:
        UserError: the video cannot be read, nobody is in it, or a file to write exists.
    """
    from lisa_video.video import read_video, write_video

    detector = build_detector(config.detector, weights=config.weights)
    video = read_video(config.source)
    poses = detect_poses(video.frames, video.fps, detector, skeleton=config.skeleton)
    found = int((poses.frame_weights() > 0).sum())
    if not found:
        raise UserError(
            f"{config.source}: {detector.name} found no person in any of its {len(poses)} frames"
        )
    poses.save(config.out)
    print(f"{config.out}: a person in {found} of {len(poses)} frames")
    if config.preview is not None:
        write_video(config.preview, preview_frames(video.frames, poses), video.fps)
        print(f"{config.preview}: source and skeletons")
    return poses


def detect_poses(
    frames: NDArray[np.uint8], fps: float, detector: PoseDetector, *, skeleton: str | None = None
) -> PoseSequence:
    """The poses that `detector` finds in the frames, uint8 (F, H, W, 3), of one video.

    `skeleton` is what to keep of its keypoints, see `kept_skeleton`.
    """
    height, width = frames.shape[1:3]
    kept = kept_skeleton(detector, skeleton)
    found = detector.detect(frames)[:, :, : len(SKELETONS[kept])]
    return PoseSequence(found, width, height, fps, skeleton=kept, detector=detector.name)


def kept_skeleton(detector: PoseDetector, asked: str | None) -> str:
    """The skeleton to store: the one asked for, or all that the detector finds.

    Raises:
        UserError: the detector does not find all of it.
    """
    if asked is None:
        return detector.skeleton
    if len(SKELETONS[asked]) > len(SKELETONS[detector.skeleton]):
        raise UserError(
            f"skeleton={asked}: {detector.name} finds no more than {detector.skeleton}; "
            "take another detector, such as dwpose"
        )
    return asked


def preview_frames(frames: NDArray[np.uint8], poses: PoseSequence) -> NDArray[np.uint8]:
    """Source and skeletons side by side.

    Args:
        frames: uint8 (F, H, W, 3).
        poses: of these frames.

    Returns:
        uint8 (F, H', W', 3), both sides even, as H.264 needs them.
    """
    from einops import rearrange

    from lisa_video.gallery import side_by_side

    size = (poses.width, poses.height)
    drawn = rearrange(draw_pose_frames(poses.keypoints, size, size), "f c h w -> f h w c")
    skeletons = (drawn * 255).round().astype(np.uint8)
    panels = side_by_side({"source": frames, "poses": skeletons}, side=_PREVIEW_HEIGHT)
    height, width = panels.shape[1:3]
    return panels[:, : height - height % 2, : width - width % 2]

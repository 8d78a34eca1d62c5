"""Checks that open the files of one clip, as a job of `map_jobs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lisa_video.clip_files import clip_sha256
from lisa_video.errors import UserError
from lisa_video.manifest_lines import ManifestEntry
from lisa_video.poses import PoseSequence
from lisa_video.validation.config import ValidateDataConfig
from lisa_video.validation.findings import Finding, Line
from lisa_video.video import VideoError, iter_frames, probe_video

_FPS_TOLERANCE = 0.01  # as a share: containers round rates


def check_clip(line: Line, *, config: ValidateDataConfig) -> list[Finding]:
    """Findings about the video and the pose file of a clip, which exist."""
    problems = [
        *_video_problems(line.entry, config),
        *_pose_problems(line.entry, config),
    ]
    return [line.finding(check, problem) for check, problem in problems]


def _video_problems(entry: ManifestEntry, config: ValidateDataConfig) -> Iterator[tuple[str, str]]:
    path = config.dataset / entry.video
    try:
        info = probe_video(path)
        if config.decode:
            for _ in iter_frames(path):
                pass
    except VideoError as error:
        yield "video", _without_path(error, path)
        return
    for name in ("frames", "width", "height"):
        found, stated = getattr(info, name), getattr(entry, name)
        if found != stated:
            yield "video", f"{name} is {found}, the manifest says {stated}"
    if abs(info.fps - entry.fps) > _FPS_TOLERANCE * entry.fps:
        yield "video", f"fps is {info.fps:g}, the manifest says {entry.fps:g}"
    if config.hashes:
        try:
            digest = clip_sha256(path)
        except UserError as error:
            yield "video", _without_path(error, path)
        else:
            if digest != entry.sha256:
                yield "hash", f"sha256 is {digest}, the manifest says {entry.sha256}"


def _pose_problems(entry: ManifestEntry, config: ValidateDataConfig) -> Iterator[tuple[str, str]]:
    path = config.dataset / entry.poses
    try:
        poses = PoseSequence.load(path)
    except UserError as error:
        yield "poses", _without_path(error, path)
        return
    found = (len(poses), poses.width, poses.height, poses.keypoints.shape[1])
    names = ("frames", "width", "height", "people")
    for name, value in zip(names, found, strict=True):
        if value != getattr(entry, name):
            yield "poses", f"{name} is {value}, the manifest says {getattr(entry, name)}"
    if abs(poses.fps - entry.fps) > _FPS_TOLERANCE * entry.fps:
        yield "poses", f"fps is {poses.fps:g}, the manifest says {entry.fps:g}"
    present = poses.body[..., 2].max(axis=(1, 2), initial=0) > 0
    if not present.any():
        yield "people", f"no person in any of {len(poses)} frames"
        return
    missing = 1 - present.mean()
    if missing > config.max_missing:
        count = int((~present).sum())
        yield "missing", f"no pose in {count} of {len(poses)} frames"
    confidence = float(np.mean(poses.frame_weights()[present]))
    if confidence < config.min_confidence:
        yield "confidence", f"mean confidence {confidence:.2f}, under {config.min_confidence:g}"


def _without_path(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")

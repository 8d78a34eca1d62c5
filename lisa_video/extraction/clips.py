"""One video of a folder: cut, detected, followed, filtered and written, as a job of `map_jobs`.

Shape legend: H W pixels of a frame.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from functools import lru_cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lisa_video.clip_files import clip_sha256
from lisa_video.detectors import PoseDetector, build_detector
from lisa_video.errors import UserError
from lisa_video.extraction.captions import find_caption
from lisa_video.extraction.people import main_people, track_people
from lisa_video.extraction.reading import probe_source, source_frames
from lisa_video.extraction.records import Skipped, Source, SourceRecord
from lisa_video.extraction.shots import Span, find_shots, split_shots
from lisa_video.extraction.smoothing import refine_motion
from lisa_video.extraction.video_poses import kept_skeleton
from lisa_video.extraction_config import ExtractPosesConfig
from lisa_video.manifest import CLIP_FOLDER, POSE_FOLDER, ManifestEntry
from lisa_video.poses import PoseSequence
from lisa_video.poses.skeletons import SKELETONS
from lisa_video.video import VideoError, VideoInfo, VideoWriter, even_size
from lisa_video.video.plain import is_plain_mp4


class _Unfit(Exception):
    """A video, or a part of one, that does not belong into the dataset; the text says why."""


def extract_source(source: Source, *, config: ExtractPosesConfig) -> SourceRecord:
    """Write the clips of one video into the dataset's folders, and say what came of it.

    What is wrong with the video becomes a `Skipped`, whatever it is: of a million videos none may
    stop the others. What was written of it before is then removed.

    Raises:
        UserError: the dataset cannot be written, or the detector's weights cannot be had.
    """
    detector = _worker_detector(config.detector, config.weights)
    clips: list[ManifestEntry] = []
    skipped: list[Skipped] = []
    try:
        for span, entry in _clips_of(source, detector, config):
            if isinstance(entry, ManifestEntry):
                clips.append(entry)
            else:
                skipped.append(Skipped(source.relative, entry, span.start, span.stop))
    except (_Unfit, VideoError) as error:
        reason = str(error).removeprefix(f"{source.path}: ")
    except UserError:
        raise
    except Exception as error:
        reason = f"unexpected {type(error).__name__}: {error}"
    else:
        return SourceRecord(source, tuple(clips), tuple(skipped))
    for entry in clips:
        remove_files(config.out, entry.id)
    return SourceRecord(source, (), (Skipped(source.relative, reason),))


def split_of(relative: str, validation_share: float) -> str:
    """The split of all clips of a video: a draw that depends on its path alone."""
    digest = hashlib.sha256(b"split:" + os.fsencode(relative)).digest()
    return "validation" if int.from_bytes(digest[:8]) / 2**64 < validation_share else "train"


def clip_files(root: Path, identity: str) -> tuple[Path, Path]:
    """Video and pose file of a clip in a dataset's folder."""
    return root / CLIP_FOLDER / f"{identity}.mp4", root / POSE_FOLDER / f"{identity}.npz"


def remove_files(root: Path, identity: str) -> None:
    """Remove the files of a clip, as far as they are there."""
    for path in clip_files(root, identity):
        path.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _worker_detector(name: str, weights: Path | None) -> PoseDetector:
    """The detector of this worker, which it keeps from job to job."""
    cv2.setNumThreads(1)  # there are as many workers as cores
    return build_detector(name, weights=weights)


def _clips_of(
    source: Source, detector: PoseDetector, config: ExtractPosesConfig
) -> Iterator[tuple[Span, ManifestEntry | str]]:
    """Parts of a video, each with its clip or with the reason why there is none."""
    caption = _caption(source, config)
    info = probe_source(source)
    if min(info.width, info.height) < config.clips.min_side:
        raise _Unfit(
            f"{info.width}x{info.height} pixels, its shorter side is under "
            f"clips.min_side={config.clips.min_side}"
        )
    spans = list(split_shots(_shots(source, info, config), config.clips))
    with closing(source_frames(source)) as frames:
        for number, span in enumerate(spans):
            if len(span) < config.clips.min_frames:
                _drop(frames, len(span))
                yield span, f"{len(span)} frames, under clips.min_frames={config.clips.min_frames}"
                continue
            whole = len(spans) == 1 and not source.image_fps and is_plain_mp4(source.path)
            identity = f"{source.id}-{number:04d}"
            part = islice(frames, len(span))
            try:
                poses = _write_clip(identity, source, part, whole, info, detector, config)
            except _Unfit as error:
                yield span, str(error)
            else:
                yield span, _entry(identity, source, poses, caption, config)


def _caption(source: Source, config: ExtractPosesConfig) -> str:
    if source.caption is not None:
        return source.caption
    try:
        return find_caption(source.path, source.relative, config.caption)
    except UserError as error:
        raise _Unfit(str(error)) from None


def _shots(source: Source, info: VideoInfo, config: ExtractPosesConfig) -> list[Span]:
    if not config.shots.detect:
        return [Span(0, info.frames)]
    with closing(source_frames(source)) as frames:
        return find_shots(frames, config.shots)


def _write_clip(
    identity: str,
    source: Source,
    frames: Iterator[NDArray[np.uint8]],
    whole: bool,
    info: VideoInfo,
    detector: PoseDetector,
    config: ExtractPosesConfig,
) -> PoseSequence:
    """Write a clip and its poses; raises _Unfit, without leaving anything, where nobody is in it.

    Frames pass through one by one: encoded on their way to the detector, unless the clip is the
    `whole` file, which is then copied as it is.
    """
    video, pose_file = clip_files(config.out, identity)
    remove_files(config.out, identity)
    with ExitStack() as stack:
        if not whole:
            writer = stack.enter_context(VideoWriter(video, info.fps, crf=config.clips.crf))
            frames = _written(frames, writer)
        found = list(detector.stream(frames))
        poses = _poses_of(found, info, detector, config)
    if whole:
        _copy(source.path, video)
    poses.save(pose_file)
    return poses


def _written(
    frames: Iterable[NDArray[np.uint8]], writer: VideoWriter
) -> Iterator[NDArray[np.uint8]]:
    for frame in frames:
        writer.write(frame)
        yield frame


def _poses_of(
    found: list[NDArray[np.float32]],
    info: VideoInfo,
    detector: PoseDetector,
    config: ExtractPosesConfig,
) -> PoseSequence:
    """Poses of a clip's main people, in the pixels of the clip as it is written."""
    skeleton = kept_skeleton(detector, config.skeleton)
    joints = len(SKELETONS[skeleton])
    tracks = track_people([people[:, :joints] for people in found], config.people.max_gap)
    people, flaw = main_people(tracks, (info.width, info.height), config.people)
    if flaw:
        raise _Unfit(flaw)
    refined = refine_motion(people, info.fps, config.smoothing)
    # A column or row added to an odd size is at the right or bottom: no keypoint moves.
    width, height = even_size(info.width, info.height)
    return PoseSequence(refined, width, height, info.fps, skeleton, detector.name)


def _entry(
    identity: str, source: Source, poses: PoseSequence, caption: str, config: ExtractPosesConfig
) -> ManifestEntry:
    video, pose_file = clip_files(config.out, identity)
    return ManifestEntry(
        id=identity,
        video=video.relative_to(config.out).as_posix(),
        poses=pose_file.relative_to(config.out).as_posix(),
        caption=caption,
        fps=poses.fps,
        frames=len(poses),
        width=poses.width,
        height=poses.height,
        split=source.split or split_of(source.relative, config.validation_share),
        people=poses.keypoints.shape[1],
        sha256=clip_sha256(video),
    )


def _copy(source: Path, target: Path) -> None:
    """A copy and not a link: what happens to one file later must not happen to the other."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"{target}: cannot write this file: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _drop(frames: Iterator[NDArray[np.uint8]], count: int) -> None:
    for _ in islice(frames, count):
        pass

"""Features of the clips of a folder, kept in a cache so that a second run is quick.

Shapes: C clips of a video, T frames, H W pixels, D features.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lisa_video.clip_files import clip_sha256, probe_clip, read_clip
from lisa_video.errors import UserError
from lisa_video.evaluation.parallel import FatalError
from lisa_video.metrics.extractors import FeatureExtractor
from lisa_video.metrics.fvd import features_of_clips
from lisa_video.metrics.sampling import ClipSampling
from lisa_video.metrics.statistics import FeatureSource


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Features of one video's clips, and what it is."""

    features: NDArray[np.float32]
    """(C, D), or (C T, D) of a network that sees frames."""
    size: tuple[int, int]
    """Width and height in pixels."""
    fps: float | None
    """None for images and arrays."""
    padded: int
    """Frames repeated because the video was too short."""


class FeatureReader:
    """Features of videos by one extractor and sampling.

    Args:
        extractor: the network.
        sampling: which clips are taken.
        source: what determines the features, beside the video.
        cache: folder to keep them in; None keeps nothing.
        batch_size: clips at a time.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        sampling: ClipSampling,
        source: FeatureSource,
        cache: Path | None,
        batch_size: int,
    ) -> None:
        self._extractor, self._sampling = extractor, sampling
        self._batch_size = batch_size
        self._folder: Path | None = None
        if cache is not None:
            described = "\n".join(astuple(source))
            self._folder = cache / hashlib.sha256(described.encode()).hexdigest()[:20]

    def read(self, path: Path) -> VideoFeatures:
        """Features of one video from `find_clips`.

        Raises UserError where it cannot be read or has too few frames for its clips, FatalError
        where the sampling calls the latter an error; the message names the file.
        """
        info = probe_clip(path)
        clips = self._sampling.indices(info.frames, path.stem)
        if clips is None:
            kind = FatalError if self._sampling.short == "error" else UserError
            raise kind(
                f"{path}: {info.frames} frames are too few for {max(self._sampling.clips, 1)} "
                f"clip(s) of {self._sampling.frames} frames with stride {self._sampling.stride}; "
                "see sampling.short_videos"
            )
        padded = max(0, self._sampling.span - info.frames)
        features = self._cached(path, clips)
        return VideoFeatures(features, (info.width, info.height), info.fps, padded)

    def _cached(self, path: Path, clips: list[list[int]]) -> NDArray[np.float32]:
        if self._folder is None:
            return self._extract(path, clips)
        # The clips are part of the key: random ones depend on the video's name.
        key = hashlib.sha256(f"{clip_sha256(path)} {clips}".encode()).hexdigest()
        kept = self._folder / f"{key[:40]}.npy"
        try:
            return np.load(kept, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            features = self._extract(path, clips)
        self._keep(kept, features)
        return features

    def _extract(self, path: Path, clips: list[list[int]]) -> NDArray[np.float32]:
        needed = sorted({index for clip in clips for index in clip})
        frames = read_clip(path, needed)
        places = {index: place for place, index in enumerate(needed)}
        features = [
            features_of_clips(
                np.stack([frames[[places[index] for index in clip]] for clip in batch]),
                self._extractor,
                self._batch_size,
            )
            for batch in _batches(clips, self._batch_size)
        ]
        return np.concatenate(features)

    @staticmethod
    def _keep(path: Path, features: NDArray[np.float32]) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.save(file, features, allow_pickle=False)
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(
                f"{path.parent}: cannot write here ({error.strerror}); give another cache, or "
                "use_cache=false"
            ) from None
        finally:
            with suppress(OSError):
                temporary.unlink()


def _batches(clips: list[list[int]], size: int) -> list[list[list[int]]]:
    """So that the windows of a long video do not lie in memory together."""
    return [clips[start : start + size] for start in range(0, len(clips), size)]

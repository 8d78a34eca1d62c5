"""Small datasets for the tests of validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lisa_video.manifest import DatasetWriter, ManifestEntry, load_manifest, write_manifest
from lisa_video.poses import PoseSequence

WIDTH, HEIGHT, FPS = 48, 32, 10.0


def make_set(root: Path, *, train: int = 4, validation: int = 2, frames: int = 9) -> Path:
    """Clips a0, a1, ... of noise, no two alike, each with one sure person."""
    rng = np.random.default_rng(0)
    with DatasetWriter(root) as writer:
        for index in range(train + validation):
            writer.add(
                f"a{index}",
                rng.integers(0, 256, (frames, HEIGHT, WIDTH, 3), dtype=np.uint8),
                person(frames),
                caption="",
                split="train" if index < train else "validation",
            )
    return root


def person(frames: int, confidence: float = 0.9) -> PoseSequence:
    keypoints = np.full((frames, 1, 18, 3), 10, np.float32)
    keypoints[..., 2] = confidence
    return PoseSequence(keypoints, WIDTH, HEIGHT, FPS, detector="ground-truth")


def change(root: Path, id: str, **values: Any) -> None:
    """Change the manifest's line of a clip; it may then name files that are missing."""
    entries = load_entries(root)
    write_manifest(root, [replace(e, **values) if e.id == id else e for e in entries])


def load_entries(root: Path) -> list[ManifestEntry]:
    return load_manifest(root)

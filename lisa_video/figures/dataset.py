"""Render many clips, in several processes, reproducibly: clip i depends on (seed, i) alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from lisa_video.errors import UserError
from lisa_video.figures.config import FiguresConfig
from lisa_video.figures.motion import Motion, load_mocap, procedural_motion
from lisa_video.figures.render import FigureClip, render_clip


@lru_cache(maxsize=2)
def _recordings(folder: Path) -> dict[str, Motion]:
    return load_mocap(folder)


def split_recordings(
    recordings: dict[str, Motion], held_out: list[str]
) -> tuple[list[Motion], list[Motion]]:
    """Recordings for training and for evaluation, each sorted by name.

    Raises:
        UserError: `held_out` names an unknown recording, or leaves none to train on.
    """
    unknown = sorted(set(held_out) - set(recordings))
    if unknown:
        raise UserError(
            f"figures.held_out names unknown recordings {unknown}; known: {sorted(recordings)}"
        )
    train = [motion for name, motion in sorted(recordings.items()) if name not in held_out]
    if not train:
        raise UserError("figures.held_out keeps every recording: none is left to train on")
    return train, [recordings[name] for name in sorted(held_out)]


def render_one(
    index: int, *, config: FiguresConfig, motion_folder: Path, held_out: bool
) -> FigureClip:
    """Clip `index` of the training split, or of the held-out split (motion capture alone)."""
    rng = np.random.default_rng([config.seed, int(held_out), index])
    train, held = split_recordings(_recordings(motion_folder), config.held_out)
    if held_out:
        motion = held[index % len(held)]
    elif rng.random() < config.mocap_share:
        motion = train[rng.integers(len(train))]
    else:
        motion = procedural_motion(rng)
    return render_clip(
        motion, rng, frames=config.frames, fps=config.fps, size=(config.size, config.size)
    )


def render_clips(
    config: FiguresConfig, motion_folder: Path, *, held_out: bool = False
) -> Iterator[FigureClip]:
    """Yield `config.clips` clips in order; the number of workers does not change them."""
    job = partial(render_one, config=config, motion_folder=motion_folder, held_out=held_out)
    if config.workers <= 1:
        yield from map(job, range(config.clips))
        return
    with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(job, range(config.clips), chunksize=8)

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.figures.config import FiguresConfig
from lisa_video.figures.dataset import render_clips, render_one
from lisa_video.figures.motion import load_mocap
from lisa_video.figures.render import COLOURS, render_clip

CONFIG = FiguresConfig(clips=6, frames=4, size=64, workers=1)


def test_clips_depend_on_seed_and_index_alone(motion_folder: Path) -> None:
    ordered = list(render_clips(CONFIG, motion_folder))
    alone = render_one(4, config=CONFIG, motion_folder=motion_folder, held_out=False)
    np.testing.assert_array_equal(ordered[4].frames, alone.frames)
    parallel = list(render_clips(replace(CONFIG, workers=2), motion_folder))
    for one, other in zip(ordered, parallel, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        assert one.caption == other.caption
    other_seed = render_one(
        4, config=replace(CONFIG, seed=1), motion_folder=motion_folder, held_out=False
    )
    assert not np.array_equal(other_seed.frames, alone.frames)


def test_held_out_recordings_never_enter_training(motion_folder: Path) -> None:
    config = replace(CONFIG, clips=60, frames=1, size=16)
    seen = {clip.motion for clip in render_clips(config, motion_folder)}
    held = {clip.motion for clip in render_clips(config, motion_folder, held_out=True)}
    assert held == {f"mocap/{name}" for name in config.held_out}
    assert not seen & held
    assert any(name.startswith("procedural/") for name in seen)


def test_unknown_held_out_recording_is_refused(motion_folder: Path) -> None:
    with pytest.raises(UserError, match=r"\['tango'\].*known"):
        list(render_clips(replace(CONFIG, held_out=["tango"]), motion_folder))


@pytest.mark.parametrize("index", range(4))
def test_figures_stay_in_frame_and_keypoints_lie_on_them(motion_folder: Path, index: int) -> None:
    clip = render_one(index, config=CONFIG, motion_folder=motion_folder, held_out=False)
    body = clip.keypoints[:, 0, 2:14]
    assert (body[..., 2] == 1).all(), "shoulders to ankles are always inside the frame"
    # The figure's colours differ from the empty scene's: compare each keypoint with the column's wall.
    for frame, joints in zip(clip.frames, body, strict=True):
        wall = frame[2].astype(int)
        hits = [
            np.abs(frame[int(y), int(x)].astype(int) - wall[int(x)]).sum() > 25
            for x, y, _ in joints
        ]
        assert np.mean(hits) > 0.8


def test_resolution_changes_only_the_resolution(motion_folder: Path) -> None:
    motion = load_mocap(motion_folder)["jump"]
    low, high = (
        render_clip(motion, np.random.default_rng(7), frames=2, fps=10, size=(side, side))
        for side in (64, 128)
    )
    np.testing.assert_allclose(high.keypoints[..., :2], 2 * low.keypoints[..., :2], atol=1e-3)
    assert low.caption == high.caption
    shrunk = high.frames.reshape(2, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(shrunk - low.frames).mean() < 4


def test_captions_name_the_colours_that_are_seen(motion_folder: Path) -> None:
    motion = load_mocap(motion_folder)["walk"]
    for seed in range(8):
        clip = render_clip(motion, np.random.default_rng(seed), frames=1, fps=10, size=(96, 96))
        wall = clip.caption.split(", ")[1].split()[0]
        assert "walking" in clip.caption
        corner = clip.frames[0, 1, 1] / 255
        distances = {name: np.abs(corner - colour).sum() for name, colour in COLOURS.items()}
        assert sorted(distances, key=distances.__getitem__).index(wall) < 2

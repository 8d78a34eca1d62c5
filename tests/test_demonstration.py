import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video.comparison.config import CompareConfig, GridConfig, ScoreConfig
from lisa_video.demonstration import driving_window, render_data, run_demo
from lisa_video.demonstration_config import DemoConfig
from lisa_video.errors import UserError
from lisa_video.figures.config import FiguresConfig
from lisa_video.manifest import load_manifest
from lisa_video.training.config import BackboneConfig, SideNetworkConfig
from lisa_video.video import probe_video
from tests.tiny import tiny_checkpoint, tiny_detector
from tests.tiny_wan import tiny_wan_checkpoint
from tests.training.runs import tiny_config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DemoConfig:
    folder = tmp_path_factory.mktemp("demo")
    training = tiny_config(
        folder / "out" / "figures",
        folder / "out",
        str(tiny_checkpoint(folder / "backbone")),
        steps=2,
        probe__every=1,
        ema__decay=0.0,
    )
    return DemoConfig(
        comparison=CompareConfig(
            training=training,
            grid=GridConfig(lr=[1e-3], tap=["down_1"]),
            seeds=[0],
            score=ScoreConfig(
                at=[1, 2],
                clips=3,
                inference_steps=2,
                guidance_scale=1.0,
                detector_weights=tiny_detector(folder / "detector"),
            ),
        ),
        figures=FiguresConfig(clips=3, frames=6, size=32, workers=1),
        validation_clips=3,
        shown=2,
    )


def test_the_demo_runs_on_wan(config: DemoConfig, tmp_path: Path) -> None:
    base = config.comparison
    training = replace(
        base.training,
        backbone=BackboneConfig(str(tiny_wan_checkpoint(tmp_path / "wan")), "wan", text_tokens=8),
        data=replace(base.training.data, root=tmp_path / "figures", frames=5),
        side_network=SideNetworkConfig(injection={"even": 2}, pose_init="normal"),
        alignment=replace(base.training.alignment, tap="block_2"),
        output=tmp_path / "out",
    )
    grid = replace(base.grid, tap=["block_2"])
    folder = run_demo(
        replace(config, comparison=replace(base, training=training, grid=grid), shown=1)
    )
    results = json.loads((folder / "results.json").read_text())
    assert results["lisa"]["tap"] == "block_2"
    assert np.load(next(folder.glob("arms/lisa*/generated-2.npy"))).shape == (3, 5, 16, 16, 3)


def test_the_demo_writes_everything_it_promises(config: DemoConfig) -> None:
    folder = run_demo(config)
    results = json.loads((folder / "results.json").read_text())
    assert {"plain", "lisa", "detector_ceiling", "seeds"} <= set(results)
    for name in ("sheet.png", "curves.png", "report.md"):
        assert (folder / name).stat().st_size > 500
    video = probe_video(folder / "side_by_side.mp4")
    # Two held-out scenes and the real one, three times four frames each; four panels wide.
    assert video.frames == 3 * 3 * 4
    assert video.width >= 4 * 192

    pictures = ("sheet.png", "side_by_side.mp4")
    first = [(folder / name).read_bytes() for name in pictures]
    run_demo(config)
    assert [(folder / name).read_bytes() for name in pictures] == first


def test_the_real_clip_drives_with_its_surest_window(config: DemoConfig) -> None:
    frames, poses = driving_window(config, 8)
    assert frames.shape == (8, 272, 640, 3) and len(poses) == 8
    assert poses.frame_weights().min() > 0.8
    # The whole person is seen, upright: head above hips above ankles.
    joints = poses.keypoints[:, 0]
    assert (joints[:, 0, 1] < joints[:, 8, 1]).all() and (joints[:, 8, 1] < joints[:, 10, 1]).all()
    assert poses.fps == pytest.approx(25 / config.real.stride)
    assert np.ptp(joints[:, 10, 0]) < 64, "one person, not two in turn"


def test_more_shown_than_scored_is_refused(config: DemoConfig) -> None:
    with pytest.raises(UserError, match="shown=9"):
        DemoConfig(config.comparison, shown=9)


def test_an_interrupted_rendering_is_begun_again(config: DemoConfig, tmp_path: Path) -> None:
    training = config.comparison.training
    elsewhere = replace(training, data=replace(training.data, root=tmp_path / "figures"))
    moved = replace(config, comparison=replace(config.comparison, training=elsewhere))
    (tmp_path / ".figures.unfinished" / "clips").mkdir(parents=True)
    (tmp_path / ".figures.unfinished" / "clips" / "half.mp4").write_bytes(b"half")
    render_data(moved)
    assert len(load_manifest(tmp_path / "figures")) == 3 + 3
    assert not (tmp_path / ".figures.unfinished").exists()

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    elsewhere = replace(training, data=replace(training.data, root=tmp_path / "other"))
    with pytest.raises(UserError, match="holds no dataset"):
        render_data(replace(config, comparison=replace(config.comparison, training=elsewhere)))
    assert (tmp_path / "other" / "mine.txt").read_text() == "keep"

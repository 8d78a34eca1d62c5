"""The long-video benchmark on tiny networks: what it compares, and what it writes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video.benchmarks.generation_config import LongVideoBenchmarkConfig
from lisa_video.benchmarks.long_video import check, driver, last_seams, load_pipeline, run
from lisa_video.errors import UserError
from lisa_video.long_video.settings import WindowSettings
from lisa_video.poses import PoseSequence
from lisa_video.training.config import BackboneConfig
from tests.tiny import awakened, tiny_backbone, tiny_checkpoint
from tests.tiny_wan import tiny_wan, tiny_wan_checkpoint


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> LongVideoBenchmarkConfig:
    folder = tmp_path_factory.mktemp("models")
    backbone = tiny_backbone()
    tiny_checkpoint(folder / "backbone", backbone)
    awakened(backbone.new_side_network()).save_pretrained(folder / "side")
    keypoints = np.random.default_rng(0).uniform(1, 31, (5, 1, 18, 3)).astype(np.float32)
    keypoints[..., 2] = 1
    PoseSequence(keypoints, width=32, height=32, fps=10).save(folder / "poses.npz")
    return LongVideoBenchmarkConfig(
        BackboneConfig(str(folder / "backbone")),
        side_network=str(folder / "side"),
        poses=folder / "poses.npz",
        frames=17,
        window=WindowSettings(6, 2),
        size=(32, 32),
        steps=2,
        device="cpu",
        threads=1,
    )


def test_the_driver_goes_there_and_back(config: LongVideoBenchmarkConfig) -> None:
    keypoints = PoseSequence.load(config.poses).keypoints
    looped = driver(config, 11).keypoints
    np.testing.assert_allclose(looped, keypoints[[0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2]])


def test_seams_are_those_of_the_last_step_in_video_frames(
    config: LongVideoBenchmarkConfig, tmp_path: Path
) -> None:
    pipeline = load_pipeline(config)
    # A stride of 4 and the phase of step 1: windows start at 0, 1, 5, 9 and 11.
    assert last_seams(config, pipeline) == [1, 5, 6, 7, 9, 11, 15]
    wan = tiny_wan_checkpoint(tmp_path, tiny_wan(num_layers=1))
    other = replace(
        config,
        backbone=BackboneConfig(str(wan), kind="wan", text_tokens=10),
        side_network=None,
        frames=41,
        window=WindowSettings(13, 4),
        steps=1,
    )
    # Eleven latent frames in windows of four, from 0, 3, 6 and 7 on: edges at 3, 4, 6, 7 and 10.
    assert last_seams(other, load_pipeline(other)) == [9, 13, 21, 25, 37]


@pytest.mark.parametrize("controlled", [True, False])
def test_it_writes_what_it_prints(
    config: LongVideoBenchmarkConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    controlled: bool,
) -> None:
    config = replace(config, json=tmp_path / "costs.json")
    if not controlled:
        config = replace(config, side_network=None)
    check(config)
    run(config)
    written = json.loads((tmp_path / "costs.json").read_text())
    for name in ("peak_mb", "allocated_mb"):
        assert set(written[name]) == {"10", "17"}
        assert all(value > 0 for value in written[name].values())
    assert written["latents_mb"]["17"] == 4 * 4 * 17 * 8 * 8 / 2**20
    out = capsys.readouterr().out
    assert f"{written['allocated_mb']['17']:.1f}" in out
    assert f"{written['seam_flicker']:.3f}" in out
    assert (written["pck"] is None) == (not controlled) == ("PCK" not in out)
    if controlled:
        assert all(0 <= value <= 1 for value in written["pck"].values())
    with pytest.raises(UserError, match=r"costs.json: exists"):
        check(config)


def test_it_needs_two_windows(config: LongVideoBenchmarkConfig) -> None:
    with pytest.raises(UserError, match="frames=11: must be at least two windows, 12"):
        replace(config, frames=11)

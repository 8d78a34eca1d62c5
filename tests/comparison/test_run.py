import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video.comparison.arms import read_arm
from lisa_video.comparison.config import (
    CompareConfig,
    FvdConfig,
    GridConfig,
    ScoreConfig,
    arm_config,
    arm_folder,
    settings,
)
from lisa_video.comparison.run import compare, write_comparison
from lisa_video.errors import UserError
from tests.metrics.networks import colour_network
from tests.tiny import tiny_checkpoint, tiny_detector
from tests.training.runs import tiny_config, write_clips


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> CompareConfig:
    folder = tmp_path_factory.mktemp("compare")
    training = tiny_config(
        write_clips(folder / "clips", length=11),
        folder / "out",
        str(tiny_checkpoint(folder / "backbone")),
        probe__every=2,
        ema__decay=0.0,
    )
    return CompareConfig(
        training=training,
        grid=GridConfig(lr=[1e-3], pose_init=["normal"], alignment_weight=[0.5], tap=["down_1"]),
        seeds=[0, 1],
        score=ScoreConfig(
            at=[2, 6],
            clips=2,
            inference_steps=2,
            guidance_scale=1.0,
            detector_weights=tiny_detector(folder / "detector"),
        ),
    )


def test_a_comparison_from_start_to_report(config: CompareConfig, tmp_path: Path) -> None:
    comparison = compare(config)
    plain, lisa = comparison.best("plain"), comparison.best("lisa")
    # Both start from the same weights: equal gap at step 0, and control that does nothing yet.
    assert plain.arms[0].gaps[0] == (0, 0.0) == lisa.arms[0].gaps[0]
    assert plain.arms[0].losses[0] == lisa.arms[0].losses[0]
    assert [step for step, _ in lisa.arms[1].scores["pck@0.1"]] == [2, 6]
    assert plain.arms[0].alignment == [] and len(lisa.arms[0].alignment) == 6
    assert plain.steps_to_equal_pck is not None and plain.steps_to_equal_pck <= 6

    write_comparison(comparison, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    promised = {
        "pck@0.1",
        "pck@0.2",
        "keypoint_distance",
        "adherence_gap",
        "step_s",
        "steps_to_equal_pck",
    }
    assert promised <= set(results["plain"]) and promised <= set(results["lisa"])
    assert results["seeds"] == [0, 1] and set(results["detector_ceiling"]) >= {"pck@0.1"}
    assert "| LISA (lisa-lr0.001-normal-w0.5-down_1-d1) |" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_repeated_comparison_trains_nothing_again(config: CompareConfig) -> None:
    first = compare(config)
    arm = arm_folder(config.training.output, settings(config.grid)[1], 0)
    written = (arm / "side_network" / "config.json").stat().st_mtime_ns
    again = compare(config)
    assert (arm / "side_network" / "config.json").stat().st_mtime_ns == written
    assert again.best("lisa").final == first.best("lisa").final


def test_an_interrupted_arm_goes_on_with_its_scores(config: CompareConfig) -> None:
    compare(config)
    setting = settings(config.grid)[0]
    folder = arm_folder(config.training.output, setting, 1)
    curves = read_arm(folder)
    # As if it had stopped right before the networks were saved.
    for path in sorted((folder / "side_network").iterdir()):
        path.unlink()
    (folder / "side_network").rmdir()
    compare(config)
    assert read_arm(folder).scores == curves.scores
    clips = np.load(folder / "generated-6.npy")
    assert clips.shape == (2, 4, 16, 16, 3) and clips.dtype == np.uint8


def test_the_grid_gives_both_objectives_the_same_search(config: CompareConfig) -> None:
    grid = GridConfig(
        lr=[1e-4, 2e-4],
        pose_init=["zero", "normal"],
        alignment_weight=[0.2, 1.0],
        tap=["mid"],
        decoder_lr_scale=[1.0, 10.0],
    )
    points = settings(grid)
    plain = {(p.lr, p.pose_init) for p in points if p.objective == "plain"}
    lisa = {(p.lr, p.pose_init) for p in points if p.objective == "lisa"}
    assert plain == lisa and len(plain) == 4 and len(points) == 4 + 16
    assert len({point.name for point in points}) == len(points)
    arm = arm_config(config, points[-1], 7)
    assert (arm.seed, arm.objective, arm.alignment.weight) == (7, "lisa", 1.0)
    assert arm.alignment.decoder_lr_scale == 10.0
    assert (arm.optimizer.lr, arm.side_network.pose_init) == (2e-4, "normal")
    assert arm.optimizer.warmup_steps == config.training.optimizer.warmup_steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "each once"),
        ({"breakthrough_fraction": 1.0}, "between 0 and 1"),
        ({"score": ScoreConfig(at=[2, 4])}, "last step must be scored"),
    ],
)
def test_settings_that_cannot_be_compared(
    config: CompareConfig, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        replace(config, **change)


def test_score_steps_must_increase() -> None:
    with pytest.raises(UserError, match="increasing"):
        ScoreConfig(at=[4, 2])


def test_finished_arms_get_a_distance_named_after_its_network(
    config: CompareConfig, tmp_path: Path
) -> None:
    network = colour_network(tmp_path)
    with_fvd = replace(config, fvd=FvdConfig(clips=3, frames=9, network=str(network)))
    first = compare(with_fvd)
    assert first.fvd_name.startswith("FD-") and first.fvd_protocol is not None
    assert first.fvd_protocol["clips"] == 3 and first.fvd_protocol["frames"] == 9
    for objective in ("plain", "lisa"):
        point = first.best(objective)
        folders = [arm_folder(config.training.output, point.setting, seed) for seed in (0, 1)]
        kept = [json.loads((folder / "fvd.json").read_text())["value"] for folder in folders]
        assert point.fvd == pytest.approx(sum(kept) / 2) and point.fvd > 0
    # Kept values are read back; another protocol is measured anew.
    (folders[0] / "fvd.json").write_text(
        json.dumps({"name": "x", "value": 7.0, "protocol": first.fvd_protocol})
    )
    again = compare(with_fvd).best("lisa").fvd
    assert again == pytest.approx((7.0 + kept[1]) / 2)
    other = replace(with_fvd, fvd=replace(with_fvd.fvd, frames=10))
    assert compare(other).best("lisa").fvd not in (again, first.best("lisa").fvd)
    write_comparison(first, tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert f"| {first.fvd_name} |" in report and "3 held-out clips of 9 frames" in report


def test_fvd_that_cannot_be_had_is_refused(config: CompareConfig) -> None:
    with pytest.raises(UserError, match=r"fvd.clips=1: give at least 2, or 0"):
        FvdConfig(clips=1)
    with pytest.raises(UserError, match="unknown FVD preset 'mine'"):
        compare(replace(config, fvd=FvdConfig(clips=2, frames=5, preset="mine")))
    with pytest.raises(UserError, match="4 are to be scored"):
        compare(replace(config, fvd=FvdConfig(clips=4, frames=5)))

"""A whole tiny ablation."""

import json
from pathlib import Path

import pytest

from lisa_video.ablation.config import AblateConfig, arm_folder
from lisa_video.ablation.run import ablate, check_ablation, reach, write_ablation
from lisa_video.comparison.analysis import CurvePoint
from lisa_video.comparison.config import ScoreConfig
from lisa_video.errors import UserError
from lisa_video.training.run_folder import read_log
from tests.tiny import tiny_checkpoint, tiny_detector
from tests.training.runs import tiny_config, write_clips


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> AblateConfig:
    folder = tmp_path_factory.mktemp("ablate")
    training = tiny_config(
        write_clips(folder / "clips"),
        folder / "out",
        str(tiny_checkpoint(folder / "backbone")),
        steps=4,
        probe__every=2,
        ema__decay=0.0,
    )
    return AblateConfig(
        training,
        {
            "plain": {"objective": "plain"},
            "every_2": {"alignment.every": 2, "alignment": {"tap": ["down_1", "mid"]}},
        },
        seeds=[0, 1],
        score=ScoreConfig(
            at=[2, 4],
            clips=2,
            inference_steps=2,
            guidance_scale=1.0,
            detector_weights=tiny_detector(folder / "detector"),
        ),
    )


def test_an_ablation_from_start_to_report(config: AblateConfig, tmp_path: Path) -> None:
    check_ablation(config)
    ablation = ablate(config)
    plain, some = ablation.arms
    assert ablation.reference is plain and ablation.overhead_pct(plain) == 0
    # The same start; and where the reference ends, it has reached itself.
    assert plain.arms[0].losses[0] == some.arms[0].losses[0]
    assert plain.reached["held_out_loss"].steps is not None
    for arm in ablation.arms:
        assert list(arm.seconds) == [0, 1, 2, 3, 4] and arm.step_s > 0
        logged = [
            sum(
                row.get("step_s", 0)
                for row in read_log(arm_folder(config.training.output, arm.name, seed))
            )
            for seed in config.seeds
        ]
        assert arm.seconds[4] == pytest.approx(sum(logged) / 2)
    rows = read_log(arm_folder(config.training.output, "every_2", 0))
    assert ["alignment/mid" in row for row in rows] == [False, False, True, False, True]

    write_ablation(ablation, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [arm["arm"] for arm in results["arms"]] == ["plain", "every_2"]
    assert results["arms"][1]["changes"] == config.arms["every_2"]
    report = (tmp_path / "report.md").read_text()
    assert "| every_2 |" in report and "alignment.every: 2" in report
    table = [line.count("|") for line in report.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len(set(table)) == 1
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

    # A repeated command trains nothing again.
    saved = arm_folder(config.training.output, "plain", 1) / "side_network" / "config.json"
    written = saved.stat().st_mtime_ns
    assert ablate(config).to_json() == ablation.to_json()
    assert saved.stat().st_mtime_ns == written


def test_a_level_is_reached_in_steps_and_in_seconds() -> None:
    points = [
        CurvePoint(step, value, value, value, 1) for step, value in ((0, 4), (10, 2), (20, 1))
    ]
    seconds = {0: 0.0, 10: 5.0, 20: 15.0}
    fallen = reach(points, seconds, 1.5, -1)
    assert (fallen.steps, fallen.seconds) == (15.0, 10.0)
    assert reach(points, seconds, 0.5, -1).seconds is None
    assert reach(points, seconds, 3.0, 1).steps == 0


def test_an_arm_whose_tap_does_not_exist_is_found_before_the_first_one(
    config: AblateConfig,
) -> None:
    from dataclasses import replace

    broken = replace(config, arms={**config.arms, "far": {"alignment.tap": "down_9"}})
    with pytest.raises(UserError, match="down_9"):
        check_ablation(broken)

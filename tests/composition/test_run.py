"""Two controls trained apart and used together, from start to report, on a tiny backbone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video.composition.config import Arm, ComposeConfig, CompositionScoreConfig, arm_config
from lisa_video.composition.report import write_composition
from lisa_video.composition.run import ALL, NONE, Composition, Seen, check_composition, compose
from lisa_video.errors import UserError
from tests.tiny import tiny_checkpoint, tiny_detector
from tests.training.runs import tiny_config, write_clips


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ComposeConfig:
    folder = tmp_path_factory.mktemp("compose")
    training = tiny_config(
        write_clips(folder / "clips"),
        folder / "out",
        str(tiny_checkpoint(folder / "backbone")),
        probe__every=0,
        ema__decay=0.0,
        steps=3,
        optimizer__lr=3e-2,
    )
    score = CompositionScoreConfig(
        clips=2,
        inference_steps=2,
        guidance_scale=1.0,
        detector_weights=tiny_detector(folder / "detector"),
    )
    return ComposeConfig(training=training, controls=["lower_body", "edges"], score=score)


@pytest.fixture(scope="module")
def result(config: ComposeConfig) -> Composition:
    check_composition(config)
    return compose(config)


def test_each_control_was_trained_on_its_own_condition(
    config: ComposeConfig, result: Composition
) -> None:
    for control in config.controls:
        folder = arm_config(config, Arm("lisa", control, 0)).output
        saved = json.loads((folder / "side_network" / "config.json").read_text())
        assert saved["condition"] == control


def test_every_way_to_act_gives_another_clip_and_none_is_the_backbone_alone(
    config: ComposeConfig, result: Composition
) -> None:
    clips = {key: clip.tobytes() for key, clip in result.examples.items()}
    assert clips["plain", NONE] == clips["lisa", NONE]
    acting = [clips["plain", name] for name in (NONE, *config.controls, ALL)]
    assert len(set(acting)) == 4


def test_true_clips_have_their_own_edges(config: ComposeConfig, result: Composition) -> None:
    assert result.ceiling["edge_f1"] == 1
    seen = Seen.open(config)
    np.testing.assert_array_equal(seen.conditions[1][0, :, 0] > 0, seen.conditions[1][0, :, 2] > 0)
    blank = np.full((2, 4, 16, 16, 3), 90, dtype=np.uint8)
    assert not seen.score(blank)["edge_f1"] > 0


def test_the_report_and_a_repeated_command(
    config: ComposeConfig, result: Composition, tmp_path: Path
) -> None:
    write_composition(result, tmp_path)
    values = json.loads((tmp_path / "results.json").read_text())
    assert set(values["scores"]["lisa"]) == {"none", "lower_body", "edges", "all"}
    assert "plain, lower_body" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "sheet.png").stat().st_size > 0
    again = compose(config)  # trains nothing, as everything is there
    assert again.scores == result.scores


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controls": ["pose"]}, "controls=.*: give at least 2, each once"),
        ({"controls": ["pose", "pose"]}, "controls=.*each once"),
        ({"scales": [1.0]}, r"scales=\[1.0\]: give one for each of controls"),
        ({"seeds": []}, "seeds=.*at least 1"),
    ],
)
def test_bad_settings(config: ComposeConfig, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(config, **changes)


def test_too_few_held_out_clips(config: ComposeConfig) -> None:
    many = replace(config, score=replace(config.score, clips=9))
    with pytest.raises(UserError, match=r"has 3 clips, score\.clips=9 are to be scored"):
        check_composition(many)

"""Arms are settings of the same training, and nothing that would make them incomparable."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lisa_video.ablation.config import AblateConfig, arm_config
from lisa_video.cli import parse_config
from lisa_video.comparison.config import ScoreConfig
from lisa_video.errors import UserError
from tests.training.runs import tiny_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> AblateConfig:
    return AblateConfig(
        tiny_config(tmp_path / "clips", tmp_path / "out"),
        {"plain": {"objective": "plain"}, "lisa": {}},
        score=ScoreConfig(at=[6]),
    )


def test_an_arm_changes_what_it_declares(config: AblateConfig) -> None:
    changes = {"alignment.every": 2, "alignment": {"tap": ["down_1", "mid"]}, "loss.gamma": 5}
    arms = replace(config, arms={**config.arms, "taps": changes})
    plain, taps = arm_config(arms, "plain", 3), arm_config(arms, "taps", 3)
    assert taps.alignment == replace(config.training.alignment, every=2, tap=["down_1", "mid"])
    assert (plain.objective, taps.objective) == ("plain", "lisa")
    assert plain.seed == taps.seed == 3 and plain.log_every == taps.log_every == 1
    assert plain.output.name == "plain-seed3" and plain.output != taps.output
    same = replace(taps, alignment=plain.alignment, objective="plain", output=plain.output)
    assert same == plain


@pytest.mark.parametrize(
    ("arms", "problem"),
    [
        ({"lisa": {}}, "reference=plain: is none of the arms lisa"),
        ({"plain": {}, "../out": {}}, "names a folder"),
        ({"plain": {}, "": {}}, "names a folder"),
        ({"plain": {"alignment.evry": 2}}, r"arms\.plain: .*'alignment\.evry'.*alignment\.every"),
        ({"plain": {"alignment": {"every": 0}}}, r"arms\.plain: alignment\.every=0"),
        ({"plain": {"alignment.every": "two"}}, r"arms\.plain: .*alignment\.every"),
        ({"plain": {"alignment.until": 3}}, r"arms\.plain: alignment\.until=3: has no effect"),
        ({"plain": {"seed": 1}}, "seed is the same for all arms"),
        ({"plain": {"data": {"frames": 2}}}, "data is the same for all arms"),
        ({"plain": {"data.frames": 2}}, r"data\.frames is the same for all arms"),
        ({"plain": {"timesteps": {"shift": 2}}}, r"timesteps\.shift is the same"),
    ],
)
def test_arms_that_cannot_be(config: AblateConfig, arms: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        replace(config, arms=arms)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seeds": [1, 1]}, "each once"),
        ({"score": ScoreConfig(at=[2, 4])}, "last step must be scored"),
        ({"threads": -1}, "threads=-1"),
    ],
)
def test_settings_that_cannot_be(
    config: AblateConfig, change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        replace(config, **change)


@pytest.mark.parametrize("kind", ["animatediff", "wan"])
def test_shipped_ablations_are_valid(kind: str) -> None:
    path = ROOT / "configs" / kind / "ablate.yaml"
    config, _ = parse_config(AblateConfig, ["--config", str(path)], "")
    assert config.arms["lisa"] == {} and len(config.arms) >= 8

"""The economy benchmark on a tiny backbone: what is timed, and how a run's mean is made of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lisa_video.benchmarks.config import EconomyBenchmarkConfig, StepBenchmarkConfig
from lisa_video.benchmarks.economy import EconomyCosts, check, run
from lisa_video.benchmarks.step import build_step
from lisa_video.cli import parse_config
from lisa_video.errors import UserError
from lisa_video.training.config import BackboneConfig
from tests.tiny import tiny_backbone, tiny_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EconomyBenchmarkConfig:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("backbone"))
    step = StepBenchmarkConfig(
        BackboneConfig(str(folder)),
        tap=["down_1", "mid"],
        batch_size=2,
        frames=2,
        size=(16, 16),
        repeats=1,
        warm_up=1,
        device="cpu",
    )
    return EconomyBenchmarkConfig(
        step, steps=100, every=2, fraction=0.5, schedule="until", until=50
    )


def test_the_mean_over_a_run_is_that_of_its_steps() -> None:
    ratios = {"plain": 1.0, "lisa": 1.2, "lisa_two_forwards": 1.4, "aligned": 1.12, "skipped": 1.0}
    costs = EconomyCosts(2.0, ratios, 0.25)
    assert costs.overhead_pct("lisa_two_forwards") == pytest.approx(40)
    assert costs.run_overhead_pct == pytest.approx(0.25 * 12)
    assert costs.to_json()["overhead_pct"]["skipped"] == 0


def test_a_skipped_step_makes_no_prior_and_a_part_runs_on_its_clips(
    config: EconomyBenchmarkConfig,
) -> None:
    seen = {}
    for name, variant, fraction in (
        ("skipped", "lisa_skipped", 1.0),
        ("aligned", "lisa", 0.5),
        ("lisa", "lisa", 1.0),
    ):
        backbone, rows = tiny_backbone(), []
        step = build_step(config.step, backbone, variant, fraction)
        backbone.main_network.up_blocks[0].register_forward_hook(
            lambda _block, _args, output, rows=rows: rows.append(len(output))
        )
        terms = step()
        seen[name] = (rows, terms.alignment is None)
    assert seen == {
        "skipped": ([4], True),
        "aligned": ([2, 4], False),
        "lisa": ([4, 4], False),
    }


def test_table_and_json_of_a_run(
    config: EconomyBenchmarkConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(config, json=tmp_path / "economy.json")
    check(config)
    run(config)
    values = json.loads((tmp_path / "economy.json").read_text())
    assert values["aligned_share"] == 0.25
    named = values["overhead_pct"]
    expected = 0.25 * named["aligned"] + 0.75 * named["skipped"]
    assert values["run_overhead_pct"] == pytest.approx(expected)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith(("plain", "LISA", "economy"))]) == 5
    with pytest.raises(UserError, match="exists already"):
        check(config)


def test_refusals_come_before_the_work(config: EconomyBenchmarkConfig) -> None:
    with pytest.raises(UserError, match="none of 3 steps"):
        replace(config, steps=3, every=4)
    with pytest.raises(UserError, match="needs its last step"):
        replace(config, until=None)
    with pytest.raises(UserError, match="is all of a batch of 2"):
        check(replace(config, fraction=0.9))
    with pytest.raises(UserError, match="tap=down_9"):
        check(replace(config, step=replace(config.step, tap=["down_1", "down_9"])))


@pytest.mark.parametrize("kind", ["animatediff", "wan"])
def test_shipped_configs_are_valid(kind: str) -> None:
    path = ROOT / "configs" / kind / "benchmark_economy.yaml"
    config, _ = parse_config(EconomyBenchmarkConfig, ["--config", str(path)], "")
    assert config.alignment.taps == list(config.step.taps)

"""The step benchmark on a tiny backbone: what its variants compute, and what it writes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lisa_video.benchmarks import BENCHMARKS
from lisa_video.benchmarks.config import StepBenchmarkConfig
from lisa_video.benchmarks.step import VARIANTS, StepCosts, build_step, check
from lisa_video.errors import UserError
from lisa_video.training.config import BackboneConfig
from tests.tiny import tiny_backbone, tiny_checkpoint

ROOT = Path(__file__).parents[2]
JOB = ROOT / "pipelines" / "benchmark.py"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StepBenchmarkConfig:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("backbone"))
    return StepBenchmarkConfig(
        BackboneConfig(str(folder)),
        tap="down_2",
        batch_size=1,
        frames=2,
        size=(16, 24),
        repeats=2,
        warm_up=1,
        device="cpu",
        threads=1,
    )


@pytest.mark.parametrize(("variant", "passes"), [("plain", 1), ("lisa", 1), (VARIANTS[2], 2)])
def test_the_shared_pass_runs_the_encoder_once(
    config: StepBenchmarkConfig, variant: str, passes: int
) -> None:
    backbone = tiny_backbone()
    step = build_step(config, backbone, variant)
    calls = {"mid": 0, "up": 0}
    backbone.main_network.mid_block.register_forward_pre_hook(
        lambda *_: calls.update(mid=calls["mid"] + 1)
    )
    backbone.main_network.up_blocks[0].register_forward_pre_hook(
        lambda *_: calls.update(up=calls["up"] + 1)
    )
    step()
    assert calls == {"mid": passes, "up": 1 if variant == "plain" else 2}


def test_both_ways_to_the_prior_train_alike(config: StepBenchmarkConfig) -> None:
    losses = {}
    for variant in ("lisa", "lisa_two_forwards"):
        step = build_step(config, tiny_backbone(), variant)
        losses[variant] = [step() for _ in range(2)]
    for shared, separate in zip(*losses.values(), strict=True):
        torch.testing.assert_close(shared.total, separate.total)
        torch.testing.assert_close(shared.prior, separate.prior)
        assert shared.alignment is not None
        assert separate.alignment is not None
        torch.testing.assert_close(shared.alignment.loss, separate.alignment.loss)
    first, second = losses["lisa"]
    assert first.total != second.total  # the step has moved the weights


def test_overheads_are_relative_to_the_plain_step() -> None:
    seconds = {"plain": 2.0, "lisa": 2.5, "lisa_two_forwards": 3.0}
    values = StepCosts(seconds, dict.fromkeys(VARIANTS, 100.0)).to_json()
    assert (values["overhead_pct"], values["overhead_two_forwards_pct"]) == (25, 50)


def test_table_and_json_of_a_run(config: StepBenchmarkConfig, tmp_path: Path) -> None:
    result = tmp_path / "step.json"
    done = launch(
        "step",
        f"--backbone.path={config.backbone.path}",
        "--tap=down_2",
        "--batch_size=1",
        "--frames=2",
        "--size=[16, 24]",
        "--repeats=2",
        "--warm_up=1",
        "--device=cpu",
        "--threads=1",
        f"--json={result}",
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "training",
        "plain",
        "LISA,",
        "LISA,",
        "1",
    ]
    values = json.loads(result.read_text())
    for key in ("plain_s", "lisa_s", "lisa_two_forwards_s", "peak_mb", "peak_plain_mb"):
        assert values[key] > 0, key
    assert values["overhead_pct"] == pytest.approx(100 * (values["lisa_s"] / values["plain_s"] - 1))
    assert {"overhead_two_forwards_pct", "peak_two_forwards_mb", "device"} <= values.keys()


def test_checks_before_the_work(config: StepBenchmarkConfig, tmp_path: Path) -> None:
    check(config)
    taken = tmp_path / "step.json"
    taken.write_text("{}")
    for change, message in (
        ({"tap": "down_99"}, "tap=down_99: .* down_0, "),
        ({"frames": 1000}, "frames=1000: this backbone takes at most 16"),
        ({"size": (64, 66)}, "size=.* multiples of 4"),
        ({"json": taken}, r"step\.json: exists already"),
        ({"backbone": BackboneConfig(str(tmp_path / "absent"))}, "absent"),
    ):
        with pytest.raises(UserError, match=message):
            check(replace(config, **change))
    with pytest.raises(UserError, match="repeats=0: must be at least 1"):
        replace(config, repeats=0)
    with pytest.raises(UserError, match="warm_up=-1: must be at least 0"):
        replace(config, warm_up=-1)


@pytest.mark.parametrize("arguments", [["stairs"], ["--json=x"], []])
def test_without_a_known_benchmark_there_is_one_line(arguments: list[str]) -> None:
    done = launch(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no benchmark '")
    assert line.endswith(f"one of: {', '.join(BENCHMARKS)}")


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(JOB), *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )

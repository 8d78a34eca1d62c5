"""The generation benchmark on tiny networks: what its variants compute, and what it writes."""

import json
from collections import Counter
from pathlib import Path

import pytest

from lisa_video.benchmarks import BENCHMARKS
from lisa_video.benchmarks.generation import VARIANTS, build_generations, load_pipeline
from lisa_video.benchmarks.generation_config import GenerationBenchmarkConfig
from lisa_video.errors import UserError
from lisa_video.training.config import BackboneConfig
from tests.tiny import tiny_checkpoint

STEPS = 4


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> GenerationBenchmarkConfig:
    return GenerationBenchmarkConfig(
        BackboneConfig(str(tiny_checkpoint(tmp_path_factory.mktemp("backbone")))),
        side_network=None,
        frames=2,
        size=(16, 24),
        steps=STEPS,
        repeats=1,
        warm_up=0,
        device="cpu",
        threads=1,
    )


def test_variants_run_what_they_are_named_after(config: GenerationBenchmarkConfig) -> None:
    pipeline = load_pipeline(config)
    calls: Counter[str] = Counter()
    for name in ("main_network", "side_network"):
        getattr(pipeline, name).register_forward_pre_hook(
            lambda _, args, name=name: calls.update([name, f"{name} x {len(args[0])}"])
        )
    pipeline.side_network.pose_encoder.register_forward_pre_hook(lambda *_: calls.update(["poses"]))
    ran = {}
    for name, generation in build_generations(config, pipeline).items():
        calls.clear()
        generation()
        ran[name] = calls["side_network"], calls["poses"]
        assert calls["main_network x 2"] == STEPS
    alone, control, half, shared = VARIANTS
    assert ran == {alone: (0, 0), control: (STEPS, 1), half: (STEPS // 2, 1), shared: (STEPS, 1)}


def test_it_writes_what_it_prints(
    config: GenerationBenchmarkConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    config = replace(config, json=tmp_path / "costs.json")
    benchmark = BENCHMARKS["generation"]
    benchmark.function("check")(config)
    benchmark.function("run")(config)
    written = json.loads((tmp_path / "costs.json").read_text())
    assert set(written["step_s"]) == set(VARIANTS)
    assert all(seconds > 0 for seconds in written["step_s"].values())
    out = capsys.readouterr().out
    assert f"{written['overhead_pct']['control']:+.1f} %" in out
    assert "+22.5 %" in out
    for changes, message in [({}, "costs.json: exists"), ({"json": None, "steps": 3}, "be even")]:
        with pytest.raises(UserError, match=message):
            benchmark.function("check")(replace(config, **changes))

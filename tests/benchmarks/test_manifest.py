"""The benchmark of manifests, on few clips."""

import json
from pathlib import Path

import pytest

from lisa_video.benchmarks.data_config import ManifestBenchmarkConfig
from lisa_video.benchmarks.manifest import VARIANTS, check, example_entry, run
from lisa_video.errors import UserError


def test_all_variants_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "manifest.json"
    run(ManifestBenchmarkConfig(clips=30, validated_clips=20, json=result))
    values = json.loads(result.read_text())
    assert list(values["openings"]) == list(VARIANTS)
    alone, with_torch = (values["openings"][name] for name in list(VARIANTS)[:2])
    assert 5 < alone["peak_mb"] < with_torch["peak_mb"], "the first imports no torch"
    assert all(value > 0 for each in values["openings"].values() for value in each.values())
    assert (values["clips"], values["validated"]) == (30, 20)
    assert "20 clips validated (metadata only, files looked for): " in capsys.readouterr().out


def test_clips_differ_and_mistakes_are_one_line(tmp_path: Path) -> None:
    entries = [example_entry(index) for index in range(2000)]
    for name in ("id", "video", "poses", "sha256"):
        assert len({getattr(entry, name) for entry in entries}) == 2000
    with pytest.raises(UserError, match="clips=0: must be at least 1"):
        ManifestBenchmarkConfig(clips=0)
    taken = tmp_path / "taken.json"
    taken.touch()
    with pytest.raises(UserError, match="exists already"):
        check(ManifestBenchmarkConfig(json=taken))

"""What a run reads and runs, as hashes."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video.manifest import Manifest
from lisa_video.manifest_index import MANIFEST
from lisa_video.poses import PoseSequence
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.provenance import (
    Code,
    Provenance,
    code_version,
    data_fingerprint,
    git_commit,
)
from lisa_video.training.sources import open_sources
from tests.training.runs import tiny_config


def fingerprint(clips: Path, encoder: ClipEncoder, **changes: object) -> str:
    config = tiny_config(clips, Path("unused"), **changes)
    return data_fingerprint(open_sources(config, encoder.backbone))


def change_caption(root: Path, split: str) -> None:
    lines = (root / MANIFEST).read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if f'"split": "{split}"' in line)
    lines[place] = json.dumps(json.loads(lines[place]) | {"caption": "another"})
    (root / MANIFEST).write_text("\n".join(lines) + "\n")


def change_poses(root: Path, split: str) -> None:
    path = root / next(Manifest.open(root).split(split).metadata()).poses
    poses = PoseSequence.load(path)
    poses = replace(poses, keypoints=np.flip(poses.keypoints, axis=0).copy())
    path.unlink()
    poses.save(path)


def test_a_copied_set_is_the_same(clips: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "copy")
    assert fingerprint(tmp_path / "copy", encoder) == fingerprint(clips, encoder)


@pytest.mark.parametrize("change", [change_caption, change_poses])
def test_what_is_read_counts_and_nothing_else(
    change: Callable[[Path, str], None], clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    before = {every: fingerprint(clips, encoder, probe__every=every) for every in (0, 3)}
    shutil.copytree(clips, tmp_path / "copy")
    change(tmp_path / "copy", "validation")
    assert fingerprint(tmp_path / "copy", encoder, probe__every=0) == before[0]
    assert fingerprint(tmp_path / "copy", encoder, probe__every=3) != before[3]
    change(tmp_path / "copy", "train")
    assert fingerprint(tmp_path / "copy", encoder, probe__every=0) != before[0]


def test_git_commit_is_that_of_the_files_themselves(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_commit(package) is None
    git("init", "-q")
    (tmp_path / "other.py").write_text("")
    git("add", "other.py")
    git("commit", "-q", "-m", "without the package")
    assert git_commit(package) is None
    git("add", "package")
    git("commit", "-q", "-m", "with it")
    assert git_commit(package) == git("rev-parse", "HEAD")
    (package / "__init__.py").write_text("a = 1\n")
    assert git_commit(package) == git("rev-parse", "HEAD") + "-dirty"


def test_round_trip_and_what_makes_code_the_same() -> None:
    code = code_version()
    assert code.packages.keys() == {"torch", "diffusers"} and len(code.sources) == 64
    values = json.loads(json.dumps(Provenance("d", code).to_json()))
    assert Provenance.from_json(values) == Provenance("d", code)
    assert code.same(replace(code, commit="0" * 40))
    assert not code.same(replace(code, sources="0" * 64))
    assert not code.same(replace(code, packages={**code.packages, "torch": "1.0"}))
    assert "torch 2.0" in str(Code("1.2", None, "0" * 64, {"torch": "2.0"}))

"""What is wrong with the files of one clip is found and named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lisa_video.poses import PoseSequence
from lisa_video.validation.clip_checks import check_clip
from lisa_video.validation.config import ValidateDataConfig
from lisa_video.validation.findings import Finding
from lisa_video.validation.manifest_checks import read_lines
from tests.broken_videos import FAULTS

from .sets import change, person


def look(root: Path, id: str, **options: Any) -> list[Finding]:
    (line,) = (line for line in read_lines(root)[0] if line.entry.id == id)
    return check_clip(line, config=ValidateDataConfig(root, **options))


def test_sound_clips_have_no_finding(root: Path) -> None:
    assert not look(root, "a0", decode=True, hashes=True)


def replace_poses(root: Path, make: Callable[[PoseSequence], PoseSequence]) -> None:
    path = root / "poses" / "a1.npz"
    make(PoseSequence.load(path)).save(path, overwrite=True)


def absent_in(frames: int) -> Callable[[PoseSequence], PoseSequence]:
    def make(poses: PoseSequence) -> PoseSequence:
        keypoints = poses.keypoints.copy()
        keypoints[:frames] = 0
        return replace(poses, keypoints=keypoints)

    return make


@pytest.mark.parametrize(
    ("spoil", "options", "check", "problem"),
    [
        (lambda r: (r / "clips/a1.mp4").write_bytes(b"no"), {}, "video", "not a video"),
        (lambda r: (r / "poses/a1.npz").write_bytes(b"no"), {}, "poses", "not a pose file"),
        (lambda r: change(r, "a1", frames=10), {}, "video", "frames is 9, the manifest says 10"),
        (lambda r: change(r, "a1", people=2), {}, "poses", "people is 1, the manifest says 2"),
        (lambda r: change(r, "a1", fps=12.0), {}, "video", "fps is 10, the manifest says 12"),
        (lambda r: replace_poses(r, absent_in(9)), {}, "people", "no person in any of 9 frames"),
        (lambda r: replace_poses(r, absent_in(6)), {}, "missing", "no pose in 6 of 9 frames"),
        (
            lambda r: replace_poses(r, lambda _: person(9, 0.2)),
            {},
            "confidence",
            "mean confidence 0.20, under 0.3",
        ),
        (lambda r: replace_poses(r, lambda p: p.frames(range(8))), {}, "poses", "frames is 8"),
        (lambda r: replace_poses(r, lambda p: p.resized(96, 64)), {}, "poses", "width is 96"),
        (lambda r: change(r, "a1", sha256="0" * 64), {"hashes": True}, "hash", "manifest says 000"),
    ],
)
def test_every_flaw_is_found_in_its_clip(
    root: Path, spoil: Callable[[Path], Any], options: dict[str, Any], check: str, problem: str
) -> None:
    spoil(root)
    looks = {id: look(root, id, **options) for id in ("a0", "a1")}
    assert not looks["a0"]
    assert {(f.number, f.id) for f in looks["a1"]} == {(3, "a1")}
    findings = [finding for finding in looks["a1"] if finding.check == check]
    assert any(problem in finding.problem for finding in findings)
    assert all("\n" not in finding.problem for finding in findings)


def test_damage_inside_a_video_is_found_by_decoding(root: Path) -> None:
    path = root / "clips" / "a2.mp4"
    (flipped,) = (fault for fault in FAULTS if fault.name == "flipped")
    flipped.make(path, path.read_bytes())
    assert [finding.check for finding in look(root, "a2", decode=True)] == ["video"]
    assert "hash" in [finding.check for finding in look(root, "a2", hashes=True)]

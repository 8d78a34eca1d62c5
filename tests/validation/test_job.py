"""Validation finds what is wrong, names it, and its cleaned manifest is clean."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.manifest import MANIFEST, Manifest, load_manifest, write_manifest
from lisa_video.poses import PoseSequence
from lisa_video.validation.config import CHECKS, ValidateDataConfig
from lisa_video.validation.job import (
    CLEANED,
    check_validation,
    run_validation,
    validate,
    write_cleaned,
)

from .sets import change, make_set, person

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path / "set")


def settings(root: Path, **values: Any) -> ValidateDataConfig:
    return ValidateDataConfig(root, **{"workers": 1, "min_side": 16, "min_fps": 5.0, **values})


def found(config: ValidateDataConfig) -> list[tuple[str, str]]:
    """Clip and check of each finding."""
    return [(each.id, each.check) for each in validate(config).findings]


def test_a_sound_set_has_no_finding(root: Path) -> None:
    config = settings(root, decode=True, hashes=True, window=9, backbone="wan")
    result = validate(config)
    assert not result.findings and not result.bad_lines
    assert [line.entry for line in result.lines] == load_manifest(root)


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
        (lambda r: (r / "clips/a1.mp4").unlink(), {}, "file", "which does not exist"),
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
    findings = [f for f in validate(settings(root, **options)).findings if f.check == check]
    assert findings and {finding.id for finding in findings} == {"a1"}
    assert {finding.number for finding in findings} == {3}
    assert any(problem in finding.problem for finding in findings)
    assert all("\n" not in finding.problem for finding in findings)


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ({"window": 5, "stride": 3}, "length"),
        ({"window": 10}, "length"),
        ({"backbone": "cogvideox"}, None),
        ({"min_fps": 10.5}, "fps"),
        ({"max_fps": 9.0}, "fps"),
        ({"min_side": 33}, "size"),
        ({"window": 3, "stride": 4, "min_side": 32, "max_fps": 10.0}, None),
    ],
)
def test_limits_hold_for_every_clip(root: Path, options: dict[str, Any], check: str | None) -> None:
    result = found(settings(root, metadata_only=True, **options))
    assert result == [(f"a{index}", check) for index in range(6) if check]


@pytest.mark.parametrize(
    ("frames", "backbone", "fitting"),
    [
        (9, "wan", None),
        (8, "wan", 5),
        (16, "cogvideox", 9),
        (17, "cogvideox", None),
        (8, None, None),
    ],
)
def test_whole_clips_suit_the_backbone(
    root: Path, frames: int, backbone: Any, fitting: int | None
) -> None:
    change(root, "a1", frames=frames)
    config = settings(root, backbone=backbone, metadata_only=True)
    problems = [f.problem for f in validate(config).findings if f.id == "a1"]
    assert bool(problems) == (fitting is not None)
    assert all(f"the first {fitting}" in problem for problem in problems)


def test_frame_steps_are_those_of_the_backbones() -> None:
    from lisa_video.backbones import BACKBONES, backbone_class
    from lisa_video.validation.config import FRAME_STEPS

    assert FRAME_STEPS.keys() == BACKBONES.keys()
    for kind, step in FRAME_STEPS.items():
        # What it is per latent frame, or twice that where the number of latent frames is odd.
        assert step in (1 * backbone_class(kind).frames_per_latent, 8)


def test_damage_inside_a_video_is_found_by_decoding(root: Path) -> None:
    path = root / "clips" / "a2.mp4"
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + len(content) // 2
    content[start : start + 400] = bytes(400)
    path.write_bytes(content)
    assert ("a2", "video") in found(settings(root, decode=True))
    assert found(settings(root, metadata_only=True, hashes=True)) == []
    assert ("a2", "hash") in found(settings(root, hashes=True)) or ("a2", "video") in found(
        settings(root, hashes=True)
    )


# Across clips.


def test_duplicates_and_leaks(root: Path) -> None:
    entries = load_manifest(root)
    same = entries[1].sha256
    entries[2] = replace(entries[2], sha256=same)  # train again
    entries[5] = replace(entries[5], sha256=same)  # validation
    write_manifest(root, entries)
    result = found(settings(root, metadata_only=True))
    # The smaller split keeps what both have.
    assert result == [("a1", "leak"), ("a2", "duplicate"), ("a2", "leak")]


def test_clips_of_a_source_belong_into_one_split(root: Path) -> None:
    entries = load_manifest(root)
    names = [f"dance-{'0' * 12}-000{index}" for index in range(3)]
    entries[0] = replace(entries[0], id=names[0])
    entries[1] = replace(entries[1], id=names[1])
    entries[4] = replace(entries[4], id=names[2])
    write_manifest(root, entries)
    assert found(settings(root, metadata_only=True)) == [(names[0], "leak"), (names[1], "leak")]
    assert not found(settings(root, metadata_only=True, source_of_id=r"(dance)"))
    every = found(settings(root, metadata_only=True, source_of_id=r"(.).*"))
    assert [id for id, _ in every] == ["a2", "a3"], "a4 and a5 are in the smaller split"


def test_a_video_named_in_two_splits_leaks_whatever_its_hash(root: Path) -> None:
    change(root, "a0", video="clips/a5.mp4")
    (finding,) = validate(settings(root, metadata_only=True)).findings
    assert (finding.id, finding.check) == ("a0", "leak")
    assert finding.problem == (
        "split 'train' has the same video file as line 7 of split 'validation'"
    )


# Manifests that do not open.


def test_every_bad_line_is_found_at_once(root: Path) -> None:
    lines = (root / MANIFEST).read_text().splitlines()
    (root / "loop.mp4").symlink_to("loop.mp4")
    (root / "out.mp4").symlink_to(ROOT / "pyproject.toml")
    changes = {
        2: lines[1].replace("clips/a0.mp4", "/etc/passwd"),
        3: lines[2].replace("clips/a1.mp4", "clips/../../a1.mp4"),
        4: lines[3].replace("clips/a2.mp4", "loop.mp4"),
        5: lines[4].replace("clips/a3.mp4", "out.mp4"),
        6: "no JSON",
        7: lines[6].replace('"a5"', '"a4 ü"'),
    }
    for number, text in changes.items():
        lines[number - 1] = text
    lines.append(lines[4])
    (root / MANIFEST).write_text("\n".join(lines))
    with pytest.raises(UserError):
        Manifest.open(root)
    problems = [
        (f.number, f.check, f.problem)
        for f in validate(settings(root, metadata_only=True, levels={"duplicate": "off"})).findings
    ]
    expected = [
        (2, "line", "'video' is '/etc/passwd', it must be relative"),
        (3, "line", "'video' is 'clips/../../a1.mp4', it must not contain '..'"),
        (4, "file", "levels of symbolic links"),
        (5, "file", "a link out of the dataset's folder"),
        (6, "line", "not valid JSON"),
        (7, "line", "must be a name of letters"),
        (8, "id", "already that of line 5"),
        (8, "file", "a link out of the dataset's folder"),
    ]
    assert len(problems) == len(expected)
    for (number, check, problem), (line, name, part) in zip(problems, expected, strict=True):
        assert (number, check) == (line, name) and part in problem


def test_what_is_no_dataset_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(UserError, match="none: no such dataset folder"):
        check_validation(settings(tmp_path / "none"))
    with pytest.raises(UserError, match="not a dataset, it has no"):
        check_validation(settings(tmp_path))
    text = (root / MANIFEST).read_text()
    (root / MANIFEST).write_text(text.replace('"version": 2', '"version": 3'))
    with pytest.raises(UserError, match="format version 3; this lisa_video reads version 2"):
        validate(settings(root))
    (root / MANIFEST).write_text(text.splitlines()[0])
    with pytest.raises(UserError, match="lists no clip"):
        validate(settings(root))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"levels": {"dupes": "off"}}, "no check 'dupes', known: line, id"),
        ({"window": 0}, "window=0: must be at least 1"),
        ({"max_missing": 2}, "max_missing=2: must be from 0 to 1"),
        ({"min_fps": 70.0}, "min_fps=70"),
        ({"html": Path("a.htm")}, r"ends in \.html"),
        ({"source_of_id": "("}, "source_of_id='\\('"),
        ({"source_of_id": "a"}, "has 0 groups, not one"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        ValidateDataConfig(Path("x"), **values)


# What is written.


def test_the_cleaned_manifest_has_no_error_and_its_lines_as_they_were(root: Path) -> None:
    (root / "clips" / "a1.mp4").unlink()
    change_text = (root / MANIFEST).read_text().splitlines()
    change_text[4] = "{broken"
    before = "\n".join(change_text)
    (root / MANIFEST).write_text(before)
    assert not run_validation(settings(root, fix=True))
    assert (root / MANIFEST).read_text() == before
    cleaned = (root / CLEANED).read_text().splitlines()
    assert cleaned == [line for index, line in enumerate(change_text) if index not in (2, 4)]
    with pytest.raises(UserError, match="exists already"):
        check_validation(settings(root, fix=True))
    (root / CLEANED).rename(root / MANIFEST)
    assert run_validation(settings(root, fix=True))
    assert len(Manifest.open(root)) == 4


def test_nothing_left_is_said(root: Path) -> None:
    with pytest.raises(UserError, match="every clip has an error"):
        write_cleaned(root, set(range(2, 8)))
    assert not (root / CLEANED).exists()


def test_the_page_stands_alone_and_is_escaped(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(root, "a0", caption="<script>alert('x')</script> \"ü\"")
    (root / "clips" / "a1.mp4").write_bytes(b"no video")
    (root / "poses" / "a2.npz").write_bytes(b"no poses")
    page, listed = tmp_path / "page.html", tmp_path / "found.json"
    assert not run_validation(settings(root, html=page, json=listed, thumbnails=5))
    text = page.read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "http" not in text and text.count('src="data:image/jpeg;base64,') == 4
    assert text.count("no picture") == 1
    assert "not a video" in text and "a2" in text
    findings = json.loads(listed.read_text())["findings"]
    assert Counter(each["check"] for each in findings) == {"video": 1, "poses": 1}
    assert {each["level"] for each in findings} == {"error"}
    printed = capsys.readouterr().out
    assert "6 clips, 2 errors, 0 warnings" in printed
    assert "error: line 3 clip 'a1': video: not a video" in printed


def test_levels_decide_what_fails(root: Path) -> None:
    change(root, "a1", sha256=load_manifest(root)[0].sha256)
    for level, passes in (("error", False), ("warning", True), ("off", True)):
        config = settings(root, metadata_only=True, levels={"duplicate": level})
        assert run_validation(config) == passes
    assert set(CHECKS) == set(validate(config).levels)


def test_the_job_and_its_exit_code(root: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "pipelines/validate_data.py", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    options = ("--metadata-only", "--min_side=16")
    sound = run(root, *options)
    assert sound.returncode == 0 and "6 clips, 0 errors, 0 warnings" in sound.stdout
    (root / "clips" / "a1.mp4").unlink()
    bad = run(root, *options)
    assert bad.returncode == 1 and "1 errors" in bad.stdout and not bad.stderr
    missing = run(tmp_path / "none")
    assert missing.returncode == 2
    assert missing.stderr == f"error: {tmp_path / 'none'}: no such dataset folder\n"


def test_names_of_all_sorts(tmp_path: Path) -> None:
    root = make_set(tmp_path / "my 'set' ü", train=1, validation=0)
    video = "clips/a \"b\" 'c' 日本 & <d>.mp4"
    (root / "clips" / "a0.mp4").rename(root / video)
    entries = load_manifest_without_files(root)
    write_manifest(root, [replace(entries[0], video=video)])
    page = tmp_path / "page.html"
    assert run_validation(settings(root, html=page, decode=True))
    assert "base64" in page.read_text()


def load_manifest_without_files(root: Path) -> list[Any]:
    return list(Manifest.open(root, check_files=False).metadata())


def test_workers_find_the_same(root: Path) -> None:
    (root / "clips" / "a3.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    replace_poses(root, absent_in(9))
    assert (
        found(settings(root, workers=2))
        == found(settings(root))
        == [
            ("a1", "people"),
            ("a3", "video"),
        ]
    )

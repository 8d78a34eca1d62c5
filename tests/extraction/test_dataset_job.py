"""A folder of videos becomes a dataset, however often the run is killed, and what is refused."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lisa_video.assets import fetch_asset
from lisa_video.dataset import ClipDataset
from lisa_video.errors import UserError
from lisa_video.extraction.dataset_job import SKIPPED, STATE_FOLDER
from lisa_video.extraction.job import check_extraction, extract
from lisa_video.extraction_config import ClipsConfig, ExtractPosesConfig
from lisa_video.locking import only_writer
from lisa_video.manifest import MANIFEST, load_manifest
from tests.broken_videos import FAULTS, break_videos
from tests.extraction.man import man_config, write_man

JOB = Path(__file__).parents[2] / "pipelines" / "extract_poses.py"


@pytest.fixture
def config(tmp_path: Path) -> ExtractPosesConfig:
    for number in range(6):
        write_man(tmp_path / "videos" / f"set {number % 2}" / f"é{number}.mp4", start=15 * number)
    (tmp_path / "videos" / "broken.mp4").write_text("no video")
    return man_config(tmp_path / "videos", tmp_path / "out")


def skipped(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / SKIPPED).read_text().splitlines()]


def run_job(config: ExtractPosesConfig, **popen: object) -> subprocess.Popen[str]:
    flags = {
        "out": config.out,
        "clips.min_frames": config.clips.min_frames,
        "clips.max_frames": config.clips.max_frames,
        "workers": 1,
    }
    words = [part for key, value in flags.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, str(JOB), str(config.source), *words]
    return subprocess.Popen(command, text=True, **popen)  # type: ignore[call-overload]


def test_a_killed_run_goes_on_to_the_dataset_of_one_without_interruption(
    config: ExtractPosesConfig,
) -> None:
    extract(config)
    whole = replace(config, out=config.out.with_name("killed"))
    journal = whole.out / STATE_FOLDER / "journal.jsonl"
    process = run_job(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (whole.out / MANIFEST).exists(), "an interrupted run is no dataset"
    done = journal.read_bytes()
    # As a kill at a worse time leaves it: a torn line, and files of clips that are not noted.
    journal.write_bytes(done + b'{"source": "set')
    last = sorted(load_manifest(config.out), key=lambda entry: entry.video)[-1]
    (whole.out / "clips" / f".{last.id}.mp4.123.tmp").write_bytes(b"half")
    (whole.out / last.poses).write_bytes(b"half")
    extract(whole)
    assert journal.read_bytes().startswith(done), "what was done is not done again"
    for name in (MANIFEST, SKIPPED):
        assert (whole.out / name).read_bytes() == (config.out / name).read_bytes()
    files = [
        {
            path.relative_to(out): path.read_bytes()
            for folder in ("clips", "poses")
            for path in (out / folder).iterdir()
        }
        for out in (config.out, whole.out)
    ]
    assert files[0] == files[1] and len(files[0]) == 12
    assert ClipDataset(whole.out, "train", frames=8, size=(64, 64)).check() is None
    assert skipped(whole.out) == [
        {"source": "broken.mp4", "reason": "not a video, or broken from its start"}
    ]


def test_videos_that_came_changed_or_went_since(config: ExtractPosesConfig) -> None:
    extract(config)
    before = {entry.id: entry for entry in load_manifest(config.out)}
    videos = sorted(config.source.glob("*/*.mp4"))
    videos[0].unlink()
    write_man(config.source / "new.mp4", start=100)
    videos[1].unlink()
    write_man(videos[1], start=99)
    extract(config)
    after = {entry.id: entry for entry in load_manifest(config.out)}
    assert len(set(after) - set(before)) == 1 and set(before) <= set(after)
    changed = [name for name, entry in before.items() if after[name] != entry]
    assert len(changed) == 1 and changed[0].startswith("set-")


def test_nothing_to_keep_is_said_with_the_reasons(config: ExtractPosesConfig) -> None:
    with pytest.raises(UserError, match=rf"no clip to keep; .*{SKIPPED} says why"):
        extract(replace(config, clips=ClipsConfig(min_frames=13, max_frames=30)))
    assert len(skipped(config.out)) == 7
    assert not (config.out / MANIFEST).exists()


def test_what_can_be_wrong_beforehand_is_checked_beforehand(
    config: ExtractPosesConfig, tmp_path: Path
) -> None:
    def refuse(match: str, **changes: object) -> None:
        with pytest.raises(UserError, match=match):
            check_extraction(replace(config, **changes))  # type: ignore[arg-type]

    check_extraction(config)
    empty = tmp_path / "empty"
    empty.mkdir()
    refuse("empty: no video in this folder", source=empty)
    refuse("none: no such video or folder", source=tmp_path / "none")
    refuse("unknown pose detector 'eyes', known: ", detector="eyes")
    refuse("lies in the folder of videos", out=config.source / "out")
    refuse("lies in the folder of videos", out=config.source)
    refuse("holds the folder of videos", out=tmp_path)
    refuse("a single video, not for a folder", preview=tmp_path / "a.mp4")
    file = tmp_path / "file"
    file.touch()
    refuse("file: is a file; for a folder", out=file)
    refuse("deep: cannot be written", out=file / "deep")
    other = tmp_path / "other"
    (other / "clips").mkdir(parents=True)
    check_extraction(replace(config, out=other))
    (other / "clips" / "theirs.mp4").touch()
    refuse(r"other: holds another dataset \(clips\)", out=other)
    (empty / MANIFEST).touch()
    refuse(r"empty: holds another dataset \(manifest.jsonl\)", out=empty)
    assert not config.out.exists()


def test_a_folder_takes_one_run_at_a_time_and_one_kind_of_clips(config: ExtractPosesConfig) -> None:
    state = config.out / STATE_FOLDER
    state.mkdir(parents=True)
    with (
        only_writer(config.out, state / "lock"),
        pytest.raises(UserError, match="out: another run is writing here"),
    ):
        extract(config)
    with pytest.raises(UserError, match="no clip to keep"):
        extract(replace(config, clips=ClipsConfig(min_frames=13, max_frames=30)))
    with pytest.raises(UserError, match=r"was begun with clips=.*, now it is .*choose another out"):
        check_extraction(config)
    check_extraction(
        replace(config, clips=ClipsConfig(min_frames=13, max_frames=30), workers=7, engine="ray")
    )


def test_the_job_says_in_one_line_what_is_wrong(config: ExtractPosesConfig) -> None:
    def refused(*flags: str) -> str:
        command = [sys.executable, str(JOB), str(config.source), "--out", str(config.out), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        return line

    assert "unknown field {name}" in refused("--caption", "a {name}")
    assert "clips.max_frames=20: must be at least twice" in refused("--clips.max_frames", "20")


@pytest.mark.slow
def test_two_hundred_videos_of_which_twenty_are_broken(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for number in range(180):
        write_man(videos / f"part {number % 7}" / f"{number}.mp4", start=number % 110, count=5)
    reasons: dict[str, str] = {}
    faults = [fault for fault in FAULTS if fault.name not in ("folder", "link")][:10]
    for copy in ("one", "two"):
        folder = videos / f"broken {copy}"
        folder.mkdir()
        for path, reason in break_videos(folder, faults).items():
            reasons[path.relative_to(videos).as_posix()] = reason
    assert len(reasons) == 20
    config = man_config(videos, tmp_path / "out")
    extract(replace(config, clips=replace(config.clips, min_side=32), workers=2))
    assert len(load_manifest(config.out)) == 180
    found = {str(part["source"]): str(part["reason"]) for part in skipped(config.out)}
    assert set(found) == set(reasons)
    for source, reason in reasons.items():
        assert re.fullmatch(reason, found[source]), (source, found[source])
    assert all(count == 2 for count in Counter(Path(name).stem for name in found).values())


@pytest.mark.slow
def test_ray_makes_the_same_dataset(config: ExtractPosesConfig) -> None:
    extract(config)
    ray = replace(config, out=config.out.with_name("ray"), engine="ray", workers=2)
    extract(ray)
    for name in (MANIFEST, SKIPPED):
        assert (ray.out / name).read_bytes() == (config.out / name).read_bytes()


@pytest.mark.slow
def test_real_clips_of_people(tmp_path: Path) -> None:
    """A talking man of 120 frames in one shot, and cyclists of 250."""
    config = ExtractPosesConfig(
        fetch_asset("clips"), tmp_path / "out", clips=ClipsConfig(max_frames=100), workers=2
    )
    extract(config)
    entries = load_manifest(config.out)
    men = [entry for entry in entries if entry.id.startswith("carphone")]
    assert [entry.frames for entry in men] == [60, 60]
    ClipDataset(config.out, "train", frames=16, size=(64, 64)).check()

"""Encoding ahead of training: nothing is made twice, and nothing that changed is served."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from lisa_video.caching import job
from lisa_video.caching.config import CacheConfig
from lisa_video.caching.job import EncodeJob, encode_shard
from lisa_video.caching.keys import EncoderKeys
from lisa_video.caching.shards import ShardInfo, write_shard
from lisa_video.caching.store import INDEX, SHARDS, CacheStore
from lisa_video.errors import UserError
from lisa_video.locking import only_writer
from lisa_video.manifest import load_manifest, write_manifest
from lisa_video.training.config import TrainConfig
from lisa_video.training.setup import open_backbone
from lisa_video.training.sources import open_dataset, open_sources
from tests.caching.conftest import cache_config
from tests.tiny import tiny_backbone, tiny_checkpoint
from tests.training.runs import write_clips

VIEWS = 2 * 5 + 3 - 1  # of training clips and of the probe; two clips are alike and share a window
CAPTIONS = 8 + 1


def shards(config: CacheConfig) -> dict[str, bytes]:
    assert config.data.cache is not None
    return {path.name: path.read_bytes() for path in (config.data.cache / SHARDS).iterdir()}


def check_readable(config: TrainConfig) -> None:
    """As `check_training` looks at the clips."""
    open_sources(config, open_backbone(config.backbone)).check()


def test_entries_are_what_the_encoders_make(clips: Path, tmp_path: Path, checkpoint: Path) -> None:
    config = cache_config(clips, tmp_path, checkpoint)
    report = job.run(config)
    assert (report.views, report.captions, report.encoded) == (VIEWS, CAPTIONS, VIEWS + CAPTIONS)
    assert len(shards(config)) == 3 + 3
    backbone = open_backbone(config.backbone)
    keys, store = EncoderKeys.of(backbone), CacheStore(config.data.cache or Path())
    dataset = open_dataset(config, backbone, "train")
    for epoch in (0, 1, 2, 5):
        clip, view = dataset.clip(3, epoch), dataset.view(3, epoch)
        pixels = torch.from_numpy(clip.pixels)[None].permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        found = store.read(keys.latents(dataset.entries[3].sha256, view))
        assert torch.equal(found, backbone.encode_video(pixels)[0])
        assert torch.equal(
            store.read(keys.states(clip.caption)), backbone.encode_text([clip.caption])[0]
        )
    check_readable(config)


def test_repeated_run_encodes_nothing(
    clips: Path, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = cache_config(clips, tmp_path, checkpoint)
    job.run(config)
    before = shards(config)
    (tmp_path / "cache" / SHARDS / ".half.1234.tmp").write_bytes(b"left by a killed run")
    assert job.run(config).encoded == 0
    assert (
        "12 views and text states of 9 captions; 0 of them encoded now" in capsys.readouterr().out
    )
    assert shards(config) == before


def test_interrupted_run_goes_on(
    clips: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cache_config(clips, tmp_path / "whole", checkpoint)
    job.run(whole)
    config = cache_config(clips, tmp_path, checkpoint)
    made = []

    def interrupted(*arguments: object) -> object:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(write_shard(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(job, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.run(config)
    with pytest.raises(UserError, match=r"13 of 21 encodings .* not there, the first is of clip"):
        check_readable(config)
    monkeypatch.undo()
    assert job.run(config).encoded == 13
    assert shards(config) == shards(whole)


def test_a_changed_caption_is_encoded_alone(clips: Path, tmp_path: Path, checkpoint: Path) -> None:
    config = cache_config(clips, tmp_path, checkpoint)
    job.run(config)
    entries = load_manifest(clips)
    entries[2] = replace(entries[2], caption="a man dances")
    write_manifest(clips, entries)
    with pytest.raises(UserError, match=r"1 of 21 encodings .* all are text states"):
        check_readable(config)
    assert job.run(config).encoded == 1
    check_readable(config)


@pytest.mark.parametrize("same_time", [True, False])
def test_a_changed_video_is_never_served(
    clips: Path, tmp_path: Path, checkpoint: Path, same_time: bool
) -> None:
    """Its manifest line still names the old content: training and caching refuse it; with a right
    line its views are missing, and encoded anew."""
    config = cache_config(clips, tmp_path, checkpoint)
    job.run(config)
    other = write_clips(tmp_path / "other", train=8, validation=0, length=8)
    entry, changed = load_manifest(clips)[1], load_manifest(other)[7]
    found = (clips / entry.video).stat()
    (clips / entry.video).write_bytes((other / changed.video).read_bytes())
    if same_time:
        os.utime(clips / entry.video, ns=(found.st_atime_ns, found.st_mtime_ns))
    for refused in (job.run, check_readable):
        with pytest.raises(UserError, match=rf"{entry.video}: has changed since the manifest"):
            refused(config)
    entries = load_manifest(clips)
    entries[1] = replace(entry, sha256=changed.sha256)
    write_manifest(clips, entries)
    with pytest.raises(UserError, match=f"2 of 21 encodings .* first is of clip '{entry.id}'"):
        check_readable(config)
    assert job.run(config).encoded == 2


def test_of_equal_videos_each_is_looked_at(clips: Path, tmp_path: Path, checkpoint: Path) -> None:
    """Two clips are one video, whose encodings they share; then one of the files changes."""
    config = cache_config(clips, tmp_path, checkpoint)
    job.run(config)
    entries = load_manifest(clips)
    assert entries[0].sha256 == entries[2].sha256 and entries[0].video != entries[2].video
    for place in (0, 2):
        content = (clips / entries[place].video).read_bytes()
        (clips / entries[place].video).write_bytes(content[:-1])
        with pytest.raises(UserError, match=f"{entries[place].video}: has changed"):
            check_readable(config)
        (clips / entries[place].video).write_bytes(content)
    check_readable(config)


def test_a_video_that_was_only_touched_is_read_once(
    clips: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cache_config(clips, tmp_path, checkpoint)
    job.run(config)
    (clips / load_manifest(clips)[1].video).touch()
    check_readable(config)
    assert job.run(config).encoded == 0
    monkeypatch.setattr("lisa_video.caching.plan.check_content", lambda *_: pytest.fail("read"))
    check_readable(config)


@pytest.mark.parametrize("size", [(8, 8), (16, 8)])
def test_other_settings_miss(
    clips: Path, tmp_path: Path, checkpoint: Path, size: tuple[int, int]
) -> None:
    job.run(cache_config(clips, tmp_path, checkpoint))
    changed = cache_config(clips, tmp_path, checkpoint, data__size=size)
    with pytest.raises(UserError, match=r"12 of 21 .* settings under data and seed have changed"):
        check_readable(changed)
    assert job.run(changed).encoded == VIEWS


def test_another_model_misses(clips: Path, tmp_path: Path, checkpoint: Path) -> None:
    """One weight of the VAE, one of the text encoder, another precision."""
    job.run(cache_config(clips, tmp_path, checkpoint))
    for part in ("vae", "text_encoder"):
        backbone = tiny_backbone()
        next(getattr(backbone, part).parameters()).data.flatten()[0] += 1
        other = tiny_checkpoint(tmp_path / part, backbone)
        changed = cache_config(clips, tmp_path, other)
        with pytest.raises(UserError, match="12 of 21" if part == "vae" else "9 of 21") as refused:
            check_readable(changed)
        assert ("made by other encoders" in str(refused.value)) == (part == "vae")
    rounded = cache_config(clips, tmp_path, checkpoint, mixed_precision="bf16")
    assert job.run(rounded).encoded == VIEWS + CAPTIONS


def test_one_run_at_a_time(clips: Path, tmp_path: Path, checkpoint: Path) -> None:
    config = cache_config(clips, tmp_path, checkpoint)
    job.run(config)
    holder = (
        "import sys; from pathlib import Path\n"
        "from lisa_video.locking import only_writer\n"
        "with only_writer(Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "cache")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="cache: another run is writing here"):
            job.run(config)
        other.kill()
    with only_writer(tmp_path / "cache"):
        pass


def test_folders_of_others_are_left_alone(clips: Path, tmp_path: Path, checkpoint: Path) -> None:
    config = cache_config(clips, tmp_path, checkpoint)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.txt").touch()
    for refuse in (job.check, job.run):
        with pytest.raises(UserError, match="cache: holds files that are no cache"):
            refuse(config)
    assert not (tmp_path / "cache" / INDEX).exists()


def test_settings_that_cannot_be_kept_are_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.cache: .* set data\.views"):
        cache_config(clips, tmp_path, tmp_path, data__views=0)
    with pytest.raises(UserError, match=r"gpus=2: must lie in \[0, 1\]"):
        cache_config(clips, tmp_path, tmp_path, gpus=2)
    with pytest.raises(UserError, match=r"data\.cache is not set"):
        cache_config(clips, tmp_path, tmp_path, data__cache=None)


def encode_but_die_once(shard: EncodeJob, *, marks: Path) -> ShardInfo:
    """As `encode_shard`, in a process that is killed at one of its shards, before and after it."""
    dying = bool(shard.captions) and "" in dict(shard.captions).values()
    if not dying or (marks / "after").exists():
        return encode_shard(shard)
    if not (marks / "before").exists():
        (marks / "before").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    encode_shard(shard)
    (marks / "after").touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_killed_worker_loses_and_doubles_nothing(
    clips: Path, tmp_path: Path, checkpoint: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers make what one makes here, byte for byte."""
    alone = cache_config(clips, tmp_path / "alone", checkpoint)
    job.run(alone)
    spread = cache_config(clips, tmp_path, checkpoint, engine=engine, encoders=2)
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setattr(job, "encode_shard", partial(encode_but_die_once, marks=marks))
    assert job.run(spread).encoded == VIEWS + CAPTIONS
    assert {path.name for path in marks.iterdir()} == {"before", "after"}
    assert shards(spread) == shards(alone)
    check_readable(spread)

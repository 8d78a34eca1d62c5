"""Encodings on disk: what is written is what is read, or an error names the file."""

import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lisa_video.caching.shards import SUFFIX, FileState, ShardInfo, write_shard
from lisa_video.caching.store import INDEX, SHARDS, CacheIndex, CacheStore, read_index
from lisa_video.errors import UserError


def key(number: int) -> str:
    """Zeros in front and behind, where a comparison of text would stop."""
    return f"00{number:028x}00"


def digest(number: int) -> str:
    return f"{number:064x}"


def entries(first: int, count: int) -> dict[str, Tensor]:
    """Other shapes and dtypes from one to the next."""
    generator = torch.Generator().manual_seed(first)
    dtypes = [torch.float32, torch.bfloat16, torch.float16]
    return {
        key(number): torch.randn(4, 1 + number % 3, 2, generator=generator).to(dtypes[number % 3])
        for number in range(first, first + count)
    }


def write(folder: Path, first: int, count: int) -> tuple[dict[str, Tensor], ShardInfo]:
    (folder / SHARDS).mkdir(exist_ok=True)
    tensors = entries(first, count)
    videos = {digest(first + place): FileState(100 + place, first) for place in range(2)}
    return tensors, write_shard(folder / SHARDS, tensors, videos, ["vae"])


def assert_holds(store: CacheStore, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        found = store.read(name)
        assert found.dtype == tensor.dtype
        torch.testing.assert_close(found, tensor, rtol=0, atol=0)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """From headers, from the index, from both, and in another process."""
    first, _ = write(tmp_path, 0, 7)
    second, _ = write(tmp_path, 7, 5)
    assert_holds(CacheStore(tmp_path), first | second)
    read_index(tmp_path).save(tmp_path / INDEX)
    third, _ = write(tmp_path, 12, 3)
    store = CacheStore(tmp_path)
    assert len(store.index.names) == 3
    everything = first | second | third
    assert_holds(store, everything)
    assert_holds(pickle.loads(pickle.dumps(store)), everything)
    absent = [key(99), key(100)]
    assert store.index.missing([absent[0], *everything, absent[1], absent[0]]) == absent


def test_the_newest_state_of_a_video_wins(tmp_path: Path) -> None:
    write(tmp_path, 0, 2)
    index = read_index(tmp_path)
    assert index.states_of([digest(1), digest(5), digest(0)]) == [
        FileState(101, 0),
        None,
        FileState(100, 0),
    ]
    newer = ShardInfo("later" + SUFFIX, 1, {}, {digest(1): FileState(101, 77)}, ["text"])
    later = index.extended([newer])
    assert later.states_of([digest(1), digest(0)]) == [FileState(101, 77), FileState(100, 0)]
    assert later.models == ["text", "vae"]
    still_later = later.with_states({digest(0): FileState(5, 6), digest(9): FileState(7, 8)})
    assert still_later.states_of([digest(1), digest(0), digest(9)]) == [
        FileState(101, 77),
        FileState(5, 6),
        FileState(7, 8),
    ]


def test_same_entries_make_the_same_file(tmp_path: Path) -> None:
    _, one = write(tmp_path, 0, 4)
    data = (tmp_path / SHARDS / one.name).read_bytes()
    _, other = write(tmp_path, 0, 4)
    assert one == other
    assert (tmp_path / SHARDS / one.name).read_bytes() == data
    assert [path.name for path in (tmp_path / SHARDS).iterdir()] == [one.name]


@pytest.mark.parametrize("indexed", [True, False])
def test_a_shard_that_is_gone_takes_its_entries_along(tmp_path: Path, indexed: bool) -> None:
    first, info = write(tmp_path, 0, 4)
    second, _ = write(tmp_path, 4, 4)
    if indexed:
        read_index(tmp_path).save(tmp_path / INDEX)
    (tmp_path / SHARDS / info.name).unlink()
    store = CacheStore(tmp_path)
    assert store.index.missing([*first, *second]) == list(first)
    assert_holds(store, second)


@pytest.mark.parametrize("place", [8, -1, None])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_damaged_shard_is_named(tmp_path: Path, place: int | None, indexed: bool) -> None:
    """One bit turned in the header or in the data, or the end cut off."""
    tensors, info = write(tmp_path, 0, 4)
    if indexed:
        read_index(tmp_path).save(tmp_path / INDEX)
    path = tmp_path / SHARDS / info.name
    data = bytearray(path.read_bytes())
    if place is None:
        del data[-1:]
    else:
        data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"{info.name}: damaged .*remove this file and run"):
        assert_holds(CacheStore(tmp_path), tensors)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no cache there"):
        CacheStore(tmp_path)
    write(tmp_path, 0, 2)
    (tmp_path / INDEX).write_bytes(b"not an index")
    with pytest.raises(UserError, match=f"{INDEX}: damaged"):
        CacheStore(tmp_path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / INDEX)
    with pytest.raises(UserError, match="not a file of a cache"):
        CacheStore(tmp_path)
    metadata = {"lisa_video_cache": '{"version": 99}'}
    save_file({"a": torch.zeros(2)}, tmp_path / INDEX, metadata)
    with pytest.raises(UserError, match="cache of version 99, this lisa_video reads 1"):
        CacheStore(tmp_path)


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from lisa_video.caching.shards import write_shard
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
write_shard(Path(sys.argv[1]), {"ab" * 16: torch.zeros(1 << 16)}, {}, [])
"""


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    tensors, info = write(tmp_path, 0, 4)
    folder = tmp_path / SHARDS
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert "UserError" in ended.stderr.splitlines()[-1]
    assert "cannot write this file: File too large" in ended.stderr
    assert [path.name for path in folder.iterdir()] == [info.name]
    assert_holds(CacheStore(tmp_path), tensors)


def test_an_index_of_a_million_entries_is_small(tmp_path: Path) -> None:
    """Opening reads 24 bytes an entry, and finding entries builds no table in Python."""
    count = 1_000_000
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(0, 256, (count, 16), dtype=np.uint8).view("S16").reshape(-1))
    index = CacheIndex(
        ["only" + SUFFIX],
        [1],
        keys,
        np.zeros(len(keys), np.int32),
        np.zeros(len(keys), np.uint32),
        np.empty(0, "S32"),
        np.empty((0, 2), np.int64),
        [],
    )
    index.save(tmp_path / INDEX)
    assert (tmp_path / INDEX).stat().st_size < 25 * count
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = CacheIndex.load(tmp_path / INDEX)
    some = keys[:: count // 1000]
    rows = loaded.rows(item.ljust(16, b"\0").hex() for item in some)
    np.testing.assert_array_equal(rows, np.arange(len(keys))[:: count // 1000])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB

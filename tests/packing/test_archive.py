"""Archives come from anywhere."""

import io
import tarfile
import zlib
from pathlib import Path

import pytest

from lisa_video.errors import UserError
from lisa_video.packing.archive import PartRange, ShardWriter, read_part

FILES = {"json": b'{"id": "walk"}', "npz": b"PK" + bytes(2000)}


def forged(*members: tuple[tarfile.TarInfo, bytes]) -> tuple[bytes, PartRange]:
    """An archive whose index fits it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    data = stream.getvalue()
    return data, PartRange(0, len(data), zlib.crc32(data))


def test_parts_are_read_from_their_bytes_alone(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    parts = {}
    with ShardWriter(path) as writer:
        for number in (0, 7, 999_999_999):
            video = {"mp4": bytes([number % 256] * 700)}
            parts[number] = writer.add(number, FILES), writer.add(number, video)
    data = path.read_bytes()
    for number, (first, second) in parts.items():
        assert read_part(data[first.start : first.stop], number, first, "x") == FILES
        found = read_part(data[second.start : second.stop], number, second, "x")
        assert found == {"mp4": bytes([number % 256] * 700)}
    with tarfile.open(path) as archive:
        assert len(archive.getnames()) == 9


def test_cut_and_damaged_bytes_are_told_apart(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shard.tar") as writer:
        part = writer.add(3, FILES)
    data = (tmp_path / "shard.tar").read_bytes()[part.start : part.stop]
    with pytest.raises(
        UserError, match=rf"s3://b/x\.tar: cut short: 100 of {len(data)} bytes at 0"
    ):
        read_part(data[:100], 3, part, "s3://b/x.tar")
    for place in (0, 600, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(UserError, match=r"s3://b/x\.tar: damaged in bytes 0 to"):
            read_part(bytes(changed), 3, part, "s3://b/x.tar")


@pytest.mark.parametrize(
    "name",
    [
        "../000000003.mp4",
        "/etc/000000003.mp4",
        "000000003.pkl",
        "000000003.pyd",
        "000000004.mp4",
        "000000003.mp4/../../x",
        "",
    ],
)
def test_names_that_do_not_belong_are_refused(name: str) -> None:
    data, part = forged((tarfile.TarInfo(name), b"x"))
    with pytest.raises(UserError, match=r"x\.tar: holds .* where a file of sample 000000003"):
        read_part(data, 3, part, "x.tar")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(kind: bytes) -> None:
    member = tarfile.TarInfo("000000003.mp4")
    member.type, member.linkname = kind, "/etc/passwd"
    data, part = forged((member, b""))
    with pytest.raises(UserError, match="where a file of sample 000000003 belongs"):
        read_part(data, 3, part, "x.tar")


def test_what_is_no_archive_is_refused() -> None:
    data = b"no tar file" * 100
    with pytest.raises(UserError, match=r"x\.tar: not a tar file at byte 0"):
        read_part(data, 3, PartRange(0, len(data), zlib.crc32(data)), "x.tar")

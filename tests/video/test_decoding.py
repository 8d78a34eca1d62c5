"""Frames by their number: whatever the container, the codec and the times, both decoders agree."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest

from lisa_video.video.decoding import Inexact, decode_decord, decode_pyav
from lisa_video.video.inspection import VideoError, inspect
from tests.broken_videos import FPS, encode, moving_frames

COUNT = 40
LEVELS = 2  # of 255: what two decoders may differ by
SOURCE = moving_frames(count=COUNT)
OPEN = "open-gop=1:bframes=3:b-adapt=0:keyint=8"


@dataclass(frozen=True)
class Case:
    """One kind of file, and which ways to its frames are sure."""

    name: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    ticks: int | None = None
    """Seed of uneven times; None shows all frames equally long."""
    cut: float = 0
    """Seconds that an edit list cuts off the start."""
    keys_lost: bool = False
    """The mp4 lost its list of key frames, so that it calls all frames so."""
    seeks: bool = True
    decord: bool = True


CASES = {
    "one key frame": Case("clip.mp4", "libx264", {"g": "250"}),
    "key frames only": Case("clip.mp4", "libx264", {"g": "1"}),
    "B-pyramid": Case("clip.mp4", "libx264", {"g": "9", "x264-params": "bframes=5:b-adapt=0"}),
    "open groups": Case("clip.mp4", "libx264", {"x264-params": OPEN}, decord=False),
    "intra refresh": Case(
        "clip.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=8"}, decord=False
    ),
    "variable rate": Case("clip.mp4", "libx264", {"g": "8", "bf": "2"}, ticks=1),
    "open groups, variable rate": Case(
        "clip.mkv", "libx264", {"x264-params": OPEN}, ticks=2, decord=False
    ),
    "cut": Case("clip.mp4", "libx264", {"g": "8", "bf": "3"}, cut=0.42, decord=False),
    "cut, variable rate": Case(
        "clip.mp4", "libx264", {"x264-params": OPEN}, ticks=4, cut=0.42, decord=False
    ),
    "h264 in mkv": Case("clip.mkv", "libx264", {"g": "8", "bf": "3"}),
    "vp9": Case(
        "clip.webm", "libvpx-vp9", {"g": "8", "deadline": "realtime", "cpu-used": "8"}, ticks=3
    ),
    "vp8": Case("clip.webm", "libvpx", {"g": "8", "lag-in-frames": "9", "auto-alt-ref": "1"}),
    "hevc, open groups": Case(
        "clip.mp4", "libx265", {"x265-params": f"{OPEN}:min-keyint=8:log-level=none"}, decord=False
    ),
    "mpeg4": Case("clip.mp4", "mpeg4", {"g": "8", "bf": "2", "q": "2"}, decord=False),
    "avi": Case("clip.avi", "mpeg4", {"g": "8", "bf": "2", "q": "2"}, seeks=False, decord=False),
    "transport stream": Case("clip.ts", "libx264", {"g": "8"}, seeks=False, decord=False),
    "h264, keys lost": Case(
        "clip.mp4", "libx264", {"g": "20"}, keys_lost=True, seeks=False, decord=False
    ),
    "mpeg4, keys lost": Case(
        "clip.mp4", "mpeg4", {"g": "20"}, keys_lost=True, seeks=False, decord=False
    ),
}


def ignore() -> None:
    pass


def write_case(path: Path, case: Case) -> None:
    ticks = None
    if case.ticks is not None:
        steps = np.random.default_rng(case.ticks).integers(1, 30, COUNT)
        ticks = (np.cumsum(steps) - steps[0]).tolist()
    encode(path, SOURCE, case.codec, ticks=ticks, **case.options)
    content = path.read_bytes()
    if case.keys_lost:
        path.write_bytes(content.replace(b"stss", b"free"))
    if case.cut:
        with av.open(str(path)) as container:
            time_base = container.streams.video[0].time_base
        assert time_base is not None
        changed, place = bytearray(content), content.index(b"elst") + 16
        (start,) = struct.unpack_from(">i", content, place)
        struct.pack_into(">i", changed, place, start + int(case.cut / time_base))
        path.write_bytes(changed)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_random_access_gives_the_frames_that_decoding_from_the_start_gives(
    tmp_path: Path, case: Case
) -> None:
    path = tmp_path / case.name
    write_case(path, case)
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    contents = inspect(path, ignore)
    assert contents.pictures == len(whole)
    nearest = [np.abs(SOURCE - frame.astype(float)).mean((1, 2, 3)).argmin() for frame in whole]
    assert np.abs(np.subtract(nearest, range(COUNT - len(whole), COUNT))).mean() < 0.3
    assert ((contents.index is not None), contents.countable) == (case.seeks, case.decord)
    random = np.random.default_rng(0)
    for _ in range(10):
        wanted = sorted(set(random.integers(0, len(whole), random.integers(1, 6)).tolist()))
        for number, frame in decode_pyav(path, contents, wanted, ignore):
            np.testing.assert_array_equal(frame, whole[number])
        if case.decord:
            found = dict(decode_decord(path, contents, wanted, ignore))
            assert list(found) == wanted
            for number, frame in found.items():
                assert np.abs(frame.astype(int) - whole[number]).max() <= LEVELS
        else:
            with pytest.raises(Inexact):
                next(decode_decord(path, contents, wanted, ignore))


def test_only_the_group_of_a_frame_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode(path, SOURCE, g="8", bf="2")
    contents = inspect(path, ignore)
    for wanted, most in (([39], 8), ([16], 1), ([3, 35], 4 + 8), (range(10, 14), 6)):
        steps: list[int] = []
        list(decode_pyav(path, contents, list(wanted), lambda steps=steps: steps.append(1)))
        assert len(steps) <= most, wanted


def test_a_key_frame_that_is_none_is_noticed(tmp_path: Path) -> None:
    """The list of key frames names others than there are: the file is decoded from its start."""
    path = tmp_path / "clip.mp4"
    encode(path, SOURCE, g="20", bf="0")
    content = bytearray(path.read_bytes())
    place = content.index(b"stss") + 12  # after the number of entries, which is 2
    assert struct.unpack_from(">2I", content, place) == (1, 21)
    struct.pack_into(">I", content, place + 4, 31)
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    path.write_bytes(content)
    contents = inspect(path, ignore)
    for wanted in ([30], [32, 39], [5, 25]):
        for number, frame in decode_pyav(path, contents, wanted, ignore):
            np.testing.assert_array_equal(frame, whole[number])
        with pytest.raises(Inexact):
            next(decode_decord(path, contents, wanted, ignore))


def test_damage_that_is_concealed_is_an_error(tmp_path: Path) -> None:
    """FFmpeg fills what it cannot decode with guesses."""
    path = tmp_path / "clip.mp4"
    encode(path, SOURCE, g="8", crf="10")
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        place = container.streams.video[0].index_entries[20].pos
    content[place + 40 : place + 44] = b"\xff" * 4
    path.write_bytes(content)
    contents = inspect(path, ignore)
    decoded = []
    with pytest.raises(VideoError, match=r"clip\.mp4: frame \d+ (is damaged|cannot be decoded)"):
        decoded.extend(number for number, _ in decode_pyav(path, contents, range(COUNT), ignore))
    assert decoded == list(range(len(decoded))) and 16 <= len(decoded) < 24
    # Other groups of pictures are whole.
    assert len(list(decode_pyav(path, contents, [3, 30], ignore))) == 2


def test_times_do_not_matter_but_their_order(tmp_path: Path) -> None:
    """Files by cameras and screen recorders have holes of seconds."""
    path = tmp_path / "clip.mp4"
    ticks = [number * 8 + 8 * FPS * 5 * (number // 9) for number in range(COUNT)]
    encode(path, SOURCE, ticks=ticks, g="8", bf="2", crf="10")
    contents = inspect(path, ignore)
    for number, frame in decode_pyav(path, contents, [8, 9, 17, 18, 39], ignore):
        assert np.abs(SOURCE - frame.astype(float)).mean((1, 2, 3)).argmin() == number

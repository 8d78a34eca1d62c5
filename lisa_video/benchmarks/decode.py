"""What reading videos costs: random windows and whole files, by each decoder, and by the guard.

Shape legend: F frames, H W pixels; frames are uint8 RGB.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import av

# Before decord, see `decode_decord`.
import cv2  # noqa: F401
import numpy as np
import torch
from numpy.typing import NDArray

from lisa_video.assets import fetch_asset
from lisa_video.benchmarks.data_config import DecodeBenchmarkConfig
from lisa_video.benchmarks.measure import interleaved_seconds, paired_ratios
from lisa_video.errors import UserError
from lisa_video.reports import check_new_file, format_table, package_versions, write_json
from lisa_video.video import iter_frames, probe_video, read_video
from lisa_video.video.decoding import decode_pyav
from lisa_video.video.inspection import inspect

BASE = "decord, guarded"
"""The way that the others are compared to: what `read_video` does with most files."""

Read = Callable[[list[int]], NDArray[np.uint8]]


@dataclass(frozen=True)
class ReadingTime:
    """One way of reading one file."""

    file: str
    key_interval: int | None
    """Frames from one key frame to the next; None: the file as it came."""
    what: str
    """windows or whole."""
    way: str
    milliseconds: float
    """Median of one read."""
    ratio: float | None
    """Median over the rounds of its time to that of `BASE`; None where decord cannot read it."""


def check(config: DecodeBenchmarkConfig) -> None:
    """Raises UserError for the output file or a video that is too short or cannot be read."""
    if config.json is not None:
        check_new_file(config.json)
    for video in config.videos:
        frames = probe_video(video).frames
        if frames < config.window:
            raise UserError(f"{video}: has {frames} frames, window={config.window} needs as many")


def run(config: DecodeBenchmarkConfig) -> None:
    """Measure, print the table and write the JSON file."""
    absent = absent_decoders()
    times = measure(config)
    print(format_times(times))
    for name, reason in absent.items():
        print(f"{name} is not compared: {reason}")
    if config.json is not None:
        used = [name for name in ("av", "decord", "torchcodec") if name not in absent]
        details = {"absent": absent, "versions": package_versions(*used)}
        write_json(config.json, {"times": [asdict(time) for time in times]} | details)


def absent_decoders() -> dict[str, str]:
    """Decoders that do not import, and why; torchcodec needs FFmpeg's shared libraries."""
    absent = {}
    for name in ("decord", "torchcodec"):
        try:
            import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            absent[name] = str(error).strip().splitlines()[0]
    return absent


def measure(config: DecodeBenchmarkConfig) -> list[ReadingTime]:
    """Every file as it is and encoded anew, in random windows and whole."""
    clips = fetch_asset("clips").glob("*.mp4") if not config.videos else []
    times: list[ReadingTime] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        for video in config.videos or sorted(clips):
            times += measure_file(video, config, video.name, None)
            for interval in config.key_intervals:
                encoded = Path(temporary) / f"{interval}.mp4"
                _encode(video, encoded, interval)
                times += measure_file(encoded, config, video.name, interval)
                encoded.unlink()
    return times


def measure_file(
    path: Path, config: DecodeBenchmarkConfig, name: str, key_interval: int | None
) -> list[ReadingTime]:
    """All ways of reading one file."""
    frames = probe_video(path).frames
    ways = ways_to_read(path)
    desc = name if key_interval is None else f"{name}, key frame every {key_interval}"
    times = []
    for what, repeats in (("windows", config.windows), ("whole", config.whole)):
        length = config.window if what == "windows" else frames
        steps = {
            way: _read_next(read, _places(frames, length, config.seed))
            for way, read in ways.items()
        }
        seconds = interleaved_seconds(
            steps, repeats, 1, torch.device("cpu"), desc=f"{desc}, {what}"
        )
        ratios = paired_ratios(seconds, BASE) if BASE in seconds else {}
        times += [
            ReadingTime(
                name,
                key_interval,
                what,
                way,
                1000 * statistics.median(seconds[way]),
                ratios.get(way),
            )
            for way in ways
        ]
    return times


def ways_to_read(path: Path) -> dict[str, Read]:
    """Functions from rising frame numbers to frames (F, H, W, 3), those that can read this file."""
    absent = absent_decoders()
    ways: dict[str, Read] = {}
    if "decord" not in absent and inspect(path, _ignore).countable:
        ways[BASE] = lambda wanted: read_video(path, wanted, backend="decord").frames
        ways["decord alone"] = lambda wanted: _read_decord(path, wanted)
    ways["PyAV, guarded"] = lambda wanted: read_video(path, wanted, backend="pyav").frames
    ways["PyAV alone"] = lambda wanted: _read_pyav(path, wanted)
    ways["PyAV from the start"] = lambda wanted: _read_pyav(path, wanted, seek=False)
    if "torchcodec" not in absent:
        ways["torchcodec alone"] = lambda wanted: _read_torchcodec(path, wanted)
    return ways


def format_times(times: Sequence[ReadingTime]) -> str:
    """The table."""
    rows = [
        [
            time.file,
            "as it is" if time.key_interval is None else str(time.key_interval),
            time.what,
            time.way,
            f"{time.milliseconds:.1f}",
            "-" if time.ratio is None else f"{time.ratio:.2f}",
        ]
        for time in times
    ]
    return format_table(["file", "key frames", "read", "by", "ms", "times"], rows)


def _read_decord(path: Path, wanted: list[int]) -> NDArray[np.uint8]:
    """As most programs use it, without a look at the packets."""
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    frames: NDArray[np.uint8] = reader.get_batch(wanted).asnumpy()
    return frames


def _read_pyav(path: Path, wanted: list[int], *, seek: bool = True) -> NDArray[np.uint8]:
    """What the worker does, in this process."""
    contents = inspect(path, _ignore)
    if not seek:
        contents = replace(contents, index=None)
    return np.stack([frame for _, frame in decode_pyav(path, contents, wanted, _ignore)])


def _read_torchcodec(path: Path, wanted: list[int]) -> NDArray[np.uint8]:
    decoders: Any = import_module("torchcodec.decoders")
    decoder = decoders.VideoDecoder(str(path), dimension_order="NHWC")
    frames: NDArray[np.uint8] = decoder.get_frames_at(indices=wanted).data.numpy()
    return frames


def _places(frames: int, length: int, seed: int) -> Iterator[list[int]]:
    """Windows at random places, the same ones for each way of reading."""
    random = np.random.default_rng(seed)
    while True:
        start = int(random.integers(frames - length + 1))
        yield list(range(start, start + length))


def _read_next(read: Read, places: Iterator[list[int]]) -> Callable[[], object]:
    return lambda: read(next(places))


def _encode(source: Path, target: Path, key_interval: int) -> None:
    """H.264 with B-frames and key frames exactly so far apart."""
    info = probe_video(source)
    with av.open(str(target), "w") as container:
        rate = Fraction(info.fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, "yuv420p"
        stream.options = {"g": str(key_interval), "x264-params": "scenecut=0"}
        for frame in iter_frames(source):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _ignore() -> None:
    pass

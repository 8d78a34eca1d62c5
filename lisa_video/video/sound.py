"""The sound of a driving video, beside generated pictures.

What users give is decoded in a process of its own, which is ended where it hangs; see `guard`.
"""

from __future__ import annotations

import heapq
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from numpy.typing import NDArray

from lisa_video.errors import UserError
from lisa_video.video.guard import START_SECONDS, limit_seconds
from lisa_video.video.inspection import VideoError, open_video, video_stream

_RATE = 48_000  # samples per second
_BITS = 128_000  # per second
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lisa_video.video.sound import _main; _main(*sys.argv[2:])"
)


def cut_sound(source: Path, start: float, seconds: float, path: Path) -> bool:
    """Write the sound that belongs to a part of a video as AAC in mp4.

    Args:
        source: of the video.
        start: where the part begins, in seconds from the first picture.
        seconds: length of the part; silence where the sound has gaps, nothing behind its end.
        path: of the file to write; an existing one is replaced.

    Returns:
        Whether there is any sound; without it nothing is written.

    Raises:
        VideoError: the sound cannot be decoded, or decoding hung or crashed.
    """
    arguments = [str(source.absolute()), repr(start), repr(seconds), str(path.absolute())]
    command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path), *arguments]
    limit = START_SECONDS + limit_seconds() + seconds
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise VideoError(f"{source}: decoding its sound stood still and was stopped") from None
    if done.returncode:
        raise VideoError(f"{source}: decoding its sound ended with code {done.returncode}")
    answer = json.loads(done.stdout)
    if answer["problem"]:
        path.unlink(missing_ok=True)
        raise VideoError(f"{source}: {answer['problem']}")
    return bool(answer["sound"])


def join_sound(pictures: Path, sound: Path, path: Path) -> None:
    """Put the pictures of one mp4 and the sound of another, both written here, into a third that plays
    while it loads; nothing is encoded anew.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with (
            av.open(str(pictures)) as first,
            av.open(str(sound)) as second,
            av.open(
                str(path.absolute()), "w", format="mp4", options={"movflags": "+faststart"}
            ) as output,
        ):
            packets = [_packets(container, output) for container in (first, second)]
            for _, packet in heapq.merge(*packets, key=lambda timed: timed[0]):
                output.mux(packet)
    except (OSError, av.FFmpegError) as error:
        raise UserError(f"{path}: cannot write this file: {error.strerror}") from None


def _packets(
    container: InputContainer, output: OutputContainer
) -> Iterator[tuple[float, av.Packet]]:
    """Time in seconds and packet of the only stream, copied into `output`."""
    (stream,) = container.streams
    copied = output.add_stream_from_template(stream)
    return _copied(container, stream, copied)


def _copied(
    container: InputContainer, stream: av.stream.Stream, copied: av.stream.Stream
) -> Iterator[tuple[float, av.Packet]]:
    for packet in container.demux(stream):
        if packet.dts is not None:
            time = float(packet.dts * packet.time_base)
            packet.stream = copied
            yield time, packet


def _main(source: str, start: str, seconds: str, path: str) -> None:
    """The process of its own: prints one JSON object."""
    answer: dict[str, object] = {"sound": False, "problem": ""}
    try:
        answer["sound"] = _cut(Path(source), float(start), float(seconds), path)
    except VideoError as error:
        answer["problem"] = str(error).removeprefix(f"{source}: ")
    except av.FFmpegError as error:
        answer["problem"] = f"its sound cannot be decoded: {error.strerror}"
    print(json.dumps(answer))


def _cut(source: Path, start: float, seconds: float, path: str) -> bool:
    with open_video(source) as container:
        if not container.streams.audio:
            return False
        pictures = video_stream(container)
        began = float((pictures.start_time or 0) * (pictures.time_base or 0))
        if start > 0:
            container.seek(int((began + start) * av.time_base))
        wanted, written = round(seconds * _RATE), 0
        with av.open(path, "w", format="mp4") as output:
            stream = output.add_stream("aac", rate=_RATE, layout="stereo")
            stream.bit_rate = _BITS
            for position, samples in _samples(container, round((began + start) * _RATE)):
                gap = np.zeros((2, max(0, min(position, wanted) - written)), np.float32)
                late = samples[:, max(0, written - position) :]
                piece = np.concatenate([gap, late], axis=1)[:, : wanted - written]
                if piece.shape[1]:
                    frame = av.AudioFrame.from_ndarray(
                        np.ascontiguousarray(piece), format="fltp", layout="stereo"
                    )
                    frame.sample_rate, frame.pts = _RATE, written
                    output.mux(stream.encode(frame))
                    written += piece.shape[1]
                if written >= wanted:
                    break
            output.mux(stream.encode(None))
    return written > 0


def _samples(container: InputContainer, origin: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Samples (2, N) and the place of the first of them, counted from `origin`."""
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=_RATE)
    for frame in container.decode(container.streams.audio[0]):
        for piece in resampler.resample(frame):
            if piece.pts is not None and piece.time_base is not None:
                place = round(float(piece.pts * piece.time_base) * _RATE)
                yield place - origin, piece.to_ndarray().astype(np.float32, copy=False)

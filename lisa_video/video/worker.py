"""The process that decodes for `lisa_video.video.guard`, and what both say to each other.

Requests arrive on the standard input, one JSON object a line. Replies leave on the standard output,
one JSON object a line, with the bytes of the frame behind each `Frame`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from lisa_video.video.decoding import Inexact, Numbered, decode_decord, decode_pyav
from lisa_video.video.inspection import Contents, VideoError, inspect

Decoder = Literal["decord", "pyav"]

_DECODERS = {"decord": decode_decord, "pyav": decode_pyav}
_SIGN_OF_LIFE = 0.5  # seconds between two


@dataclass(frozen=True)
class Request:
    """Frames of one video."""

    path: str
    """Absolute."""
    decoders: Sequence[Decoder]
    """To try in this order; the last one's errors count."""
    indices: Sequence[int] | None
    """Frames to decode, in any order; they may repeat. None: those from `start` to `stop`."""
    start: int
    stop: int | None
    """Frame to end before; None goes on to the end."""
    seconds: float
    """Time limit of each step, which the guard keeps."""


@dataclass(frozen=True)
class Reply:
    """One line of what the worker says.

    ready: it has started. counted: the packets were read; `pictures` and `fps` are known. frame:
    the bytes of frame `number`, uint8 of `shape`, follow. alive: it is at work. done. error: the
    video cannot be read, for `reason`. inexact: no decoder asked for gives exactly these frames.
    """

    kind: Literal["ready", "counted", "frame", "alive", "done", "error", "inexact"]
    pictures: int = 0
    fps: float = 0.0
    number: int = 0
    shape: Sequence[int] = ()
    reason: str = ""


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    _send(replies, Reply("ready"))
    # What decoders print is for nobody.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    for line in sys.stdin.buffer:
        try:
            _answer(Request(**json.loads(line)), replies)
        except BrokenPipeError:
            return


def _answer(request: Request, replies: BinaryIO) -> None:
    path = Path(request.path)
    clock = _Clock(replies, request.seconds)
    try:
        for reply, frame in _decode(path, request, clock):
            clock.send(reply, frame)
        reply = Reply("done")
    except VideoError as error:
        reply = Reply("error", reason=str(error).removeprefix(f"{path}: "))
    except MemoryError:
        reply = Reply("error", reason="a frame does not fit into memory")
    except Inexact:
        reply = Reply("inexact")
    except BrokenPipeError:
        raise
    except Exception as error:  # what broken files bring up in libraries has no end
        text = " ".join(str(error).split())
        reply = Reply("error", reason=f"cannot be read: {type(error).__name__}: {text}")
    clock.send(reply)
    clock.stop()


def _decode(
    path: Path, request: Request, clock: _Clock
) -> Iterator[tuple[Reply, NDArray[np.uint8] | None]]:
    contents = inspect(path, clock.alive)
    yield Reply("counted", pictures=contents.pictures, fps=contents.fps), None
    wanted = _wanted(path, request, contents)
    for attempt, decoder in enumerate(request.decoders, start=1):
        frames = _DECODERS[decoder](path, contents, wanted, clock.alive)
        try:
            for number, frame in _same_size(path, frames):
                yield Reply("frame", number=number, shape=frame.shape), frame
            return
        except Inexact:
            if attempt == len(request.decoders):
                raise


def _wanted(path: Path, request: Request, contents: Contents) -> Sequence[int]:
    """Frame numbers that rise."""
    last = contents.pictures - 1
    if request.indices is None:
        stop = contents.pictures if request.stop is None else request.stop
        wanted: Sequence[int] = range(request.start, stop)
        ends = [request.start, stop - 1]
    else:
        wanted = sorted(set(request.indices))
        ends = [wanted[0], wanted[-1]] if wanted else []
    for index in ends:
        if not 0 <= index <= last:
            raise VideoError(f"{path}: has no frame {index}, its frames are 0 to {last}")
    return wanted


def _same_size(path: Path, frames: Iterator[Numbered]) -> Iterator[Numbered]:
    """The frames given; raises VideoError where they change their size."""
    size = None
    for number, frame in frames:
        found = (frame.shape[1], frame.shape[0])
        if size is not None and found != size:
            raise VideoError(f"{path}: its frames change their size, {size} and {found} pixels")
        size = found
        yield number, frame


class _Clock:
    """Says now and then that the worker is at work, and ends it where a step takes for ever.

    The guard ends a worker that hangs. This is for when the guard's process has died meanwhile.
    """

    def __init__(self, replies: BinaryIO, seconds: float) -> None:
        self._replies = replies
        self._patience = max(1, round(2 * seconds))
        self._last = 0.0
        self._wind()

    def alive(self) -> None:
        if time.monotonic() - self._last > _SIGN_OF_LIFE:
            self.send(Reply("alive"))

    def send(self, reply: Reply, frame: NDArray[np.uint8] | None = None) -> None:
        self.stop()  # the other side may take its time to read
        _send(self._replies, reply, frame)
        self._last = time.monotonic()
        self._wind()

    def stop(self) -> None:
        if hasattr(signal, "alarm"):
            signal.alarm(0)

    def _wind(self) -> None:
        if hasattr(signal, "alarm"):
            signal.alarm(self._patience)


def _send(replies: BinaryIO, reply: Reply, frame: NDArray[np.uint8] | None = None) -> None:
    said: dict[str, Any] = {name: value for name, value in asdict(reply).items() if value}
    replies.write(json.dumps(said).encode() + b"\n")
    if frame is not None:
        replies.write(np.ascontiguousarray(frame).data.cast("B"))
    replies.flush()

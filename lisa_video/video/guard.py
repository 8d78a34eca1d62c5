"""Decoding in a process that may hang or die: it is ended, and the video's error says why.

A worker serves one request at a time and many after each other. It is a plain child process, since
the workers of a torch DataLoader may start no others; it ends with its parent.
"""

from __future__ import annotations

import atexit
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError
from lisa_video.video.inspection import VideoError
from lisa_video.video.worker import Decoder, Reply, Request

LIMIT_VARIABLE = "LISA_VIDEO_DECODE_SECONDS"
LIMIT_SECONDS = 20.0
"""Longest time for the next packet or frame; `$LISA_VIDEO_DECODE_SECONDS` sets another."""
START_SECONDS = 120.0
"""Longest time for a worker to start, on a machine that is busy."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lisa_video.video.worker import main; main()"
)
_PIPE_BYTES = 2**20  # the most that Linux gives to users


@dataclass(frozen=True)
class Counted:
    """What the packets of a video tell."""

    pictures: int
    fps: float


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video."""

    number: int
    pixels: NDArray[np.uint8]
    """(H, W, 3)."""


Place = Callable[[int, tuple[int, ...]], NDArray[np.uint8]]
"""Contiguous memory for the frame of a number and shape."""


class _WorkerDied(Exception):
    """The worker hung or died; the text says how."""


def limit_seconds() -> float:
    """The time limit in force; raises UserError where the environment sets no positive number."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        seconds = float(text) if text else LIMIT_SECONDS
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise UserError(f"{LIMIT_VARIABLE}={text}: must be a positive number of seconds")
    return seconds


def _new_memory(number: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.empty(shape, np.uint8)


def decode_guarded(
    path: Path,
    decoders: Sequence[Decoder],
    *,
    indices: Sequence[int] | None = None,
    start: int = 0,
    stop: int | None = None,
    place: Place = _new_memory,
) -> Iterator[Counted | Frame]:
    """What a worker finds in a video: `Counted` first, and then the frames, their numbers rising.

    Where a decoder hangs or dies and another is to be tried, all begins anew with `Counted`.

    Args:
        path: of the video.
        decoders: to try in this order; the errors of the last one count.
        indices: frames to decode, in any order. None: those from `start` to `stop`.
        start: first frame.
        stop: frame to end before; None goes on to the end.
        place: gives the memory for each frame.

    Raises:
        VideoError: as in `read_video`.
    """
    request = Request(str(path.absolute()), decoders, indices, start, stop, limit_seconds())
    while True:
        counted = False
        try:
            for found in _ask(path, request, place):
                counted = True
                yield found
            return
        except _WorkerDied as died:
            # Without the count it was not yet the decoder that failed.
            if not counted or len(request.decoders) == 1:
                raise VideoError(f"{path}: {died}") from None
            request = replace(request, decoders=request.decoders[1:])


def _ask(path: Path, request: Request, place: Place) -> Iterator[Counted | Frame]:
    with _borrow() as worker, _Watch(worker.process, request.seconds) as watch:
        worker.ask(request)
        while True:
            watch.go_on()
            reply = worker.reply()
            if reply is None:
                raise _WorkerDied(_cause(worker, watch))
            if reply.kind == "counted":
                found: Counted | Frame = Counted(reply.pictures, reply.fps)
            elif reply.kind == "frame":
                found = Frame(reply.number, place(reply.number, tuple(reply.shape)))
                if not worker.fill(found.pixels):
                    raise _WorkerDied(_cause(worker, watch))
            elif reply.kind == "alive":
                continue
            else:
                worker.busy = False
                _raise_problem(path, request, reply)
                return
            watch.rest()
            yield found


def _raise_problem(path: Path, request: Request, reply: Reply) -> None:
    if reply.kind == "error":
        raise VideoError(f"{path}: {reply.reason}")
    if reply.kind == "inexact":
        missing = " and ".join(request.decoders)
        raise VideoError(f"{path}: {missing} is missing or cannot read this file exactly; use pyav")
    assert reply.kind == "done", reply.kind


def _cause(worker: _Worker, watch: _Watch) -> str:
    code = worker.end()
    if watch.expired:
        return f"decoding stood still for {watch.seconds:g} s and was stopped"
    if code < 0:
        return f"decoding crashed ({signal.Signals(-code).name})"
    return f"decoding ended with exit code {code}"


class _Worker:
    """One child process."""

    def __init__(self) -> None:
        # Isolated, so that no module of the current folder comes in the place of a real one.
        command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=_PIPE_BYTES,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        self.busy = False
        with _Watch(self.process, START_SECONDS):
            reply = self.reply()
        if reply is None:
            raise UserError(f"no process for decoding can be started (exit code {self.end()})")

    def ask(self, request: Request) -> None:
        assert self.process.stdin is not None
        self.busy = True
        with suppress(BrokenPipeError):  # it has died: there will be no reply
            self.process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
            self.process.stdin.flush()

    def reply(self) -> Reply | None:
        """The next line, None where the process is no more."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return Reply(**json.loads(line)) if line.endswith(b"\n") else None

    def fill(self, frame: NDArray[np.uint8]) -> bool:
        """Read the bytes of a frame; False where the process has died before the last."""
        assert isinstance(self.process.stdout, io.BufferedReader)
        missing = frame.data.cast("B")
        while missing and (count := self.process.stdout.readinto(missing)):
            missing = missing[count:]
        return not missing

    def end(self) -> int:
        """Exit code of the process, killed where it lives."""
        self.process.kill()
        code = self.process.wait()
        self.close()
        return code

    def close(self) -> None:
        """Close the pipes, upon which the process ends."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


class _Watch:
    """Kills a worker that gives no sign of life for some seconds, as a context manager."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self.seconds, self.expired = seconds, False
        self._process, self._over = process, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self.go_on()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def go_on(self) -> None:
        """Time counts from now."""
        self._end = time.monotonic() + self.seconds

    def rest(self) -> None:
        """Time does not count: it is not the worker that takes it."""
        self._end = math.inf

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self.seconds / 4)):
            if time.monotonic() > self._end:
                self.expired = True
                self._process.kill()
                return


@contextmanager
def _borrow() -> Iterator[_Worker]:
    """A worker that is nobody else's; one that did not end its work is killed afterwards."""
    worker = _take_idle() or _Worker()
    try:
        yield worker
    finally:
        if worker.busy:
            worker.end()
        else:
            _idle.append(worker)


_idle: list[_Worker] = []


def _take_idle() -> _Worker | None:
    while True:
        try:
            worker = _idle.pop()
        except IndexError:
            return None
        if worker.process.poll() is None:
            return worker
        worker.close()


def end_workers() -> None:
    """End the workers that wait; the next request starts another."""
    while worker := _take_idle():
        worker.end()


def _forget_parents() -> None:
    """In a copy of the process: its workers belong to the original."""
    for worker in _idle:
        worker.close()
        worker.process.returncode = 0  # nothing to wait for
    _idle.clear()


atexit.register(end_workers)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)

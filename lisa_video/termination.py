"""SIGTERM as an exception, so that a job that is ended cleans up. Imports nothing heavy."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_TERMINATED = 143
# A launcher passes on to processes of its group what they have had already: cleaning up goes on.
_ECHO_SECONDS = 1.0


class Terminated(SystemExit):
    """SIGTERM came; without being caught it ends the process with 143."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)


@contextmanager
def raising_on_sigterm() -> Iterator[None]:
    """SIGTERM raises Terminated in the block, where by default it would end the process at once.

    Handlers that the block sets itself come first. Nothing changes outside of the main thread, where
    Python allows no handlers, or where SIGTERM is ignored or handled already.
    """
    is_default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, heard = os.getpid(), -_ECHO_SECONDS

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if os.getpid() != owner:  # a forked process, which has nothing of ours to clean up
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        before, heard = heard, time.monotonic()
        if heard - before > _ECHO_SECONDS:
            raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

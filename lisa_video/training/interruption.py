"""Signals that end a run: it finishes its step and saves before it stops."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")
"""SIGUSR1 is what Slurm is often asked to send before the time is over (`--signal`)."""
# A launcher passes the terminal's Ctrl-C on to processes that have had it already.
_ECHO_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """A signal stopped a run after it was saved; the text is a line that says so."""


class Interruption:
    """Takes note of signals from `listen` on until the block ends, as a context manager.

    A second SIGINT raises KeyboardInterrupt at once. Signals that the process ignores, as in a
    script's background, stay ignored; outside of the main thread, where Python allows no handlers, none are noted.
    """

    def __init__(self, *, speaks: bool = True) -> None:
        self.speaks = speaks
        """Say that a signal was heard."""
        self.signal: str | None = None
        """Name of the first signal that came."""
        self._heard = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        return self

    def listen(self) -> None:
        """Begin to take note."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None stands for a handler that was not set from Python, which cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._heard = signal.Signals(number).name, time.monotonic()
            if self.speaks:
                line = f"\n{self.signal}: finishing this step, then saving; Ctrl-C stops at once\n"
                with suppress(OSError):
                    os.write(2, line.encode())  # print may be what the signal interrupted
        elif number == signal.SIGINT and time.monotonic() - self._heard > _ECHO_SECONDS:
            raise KeyboardInterrupt


def leave_terminal(worker: int) -> None:
    """Let a reading process end by its parent's word alone, not by the terminal's Ctrl-C."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()

"""Work on the models: one thing at a time, which only the visitor who asked for it can end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lisa_video.errors import UserError


class Stopped(UserError):
    """A visitor did not want to wait for the end."""


class Desk:
    """Who has what at work.

    Gradio gives up a function that is cancelled, but its thread goes on: so it is here that the next
    one waits until the models are free, and that a thread learns of its end.
    """

    def __init__(self) -> None:
        self._free = threading.Lock()
        self._asked: list[tuple[str, threading.Event]] = []

    @contextmanager
    def work(self, visitor: str) -> Iterator[Callable[[], None]]:
        """Wait for the models and hold them; gives what has to be called often meanwhile: it raises
        Stopped when this is to end."""
        stop = threading.Event()

        def go_on() -> None:
            if stop.is_set():
                raise Stopped("stopped")

        entry = (visitor, stop)
        self._asked.append(entry)
        try:
            with self._free:
                go_on()
                yield go_on
        finally:
            self._asked.remove(entry)

    def stop(self, visitor: str) -> None:
        """End all that this visitor has at work, or waiting for it."""
        for asking, stop in tuple(self._asked):
            if asking == visitor:
                stop.set()

    def close(self) -> None:
        """End everything, and wait until nothing is at work."""
        for _, stop in tuple(self._asked):
            stop.set()
        with self._free:
            pass

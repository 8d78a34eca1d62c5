"""Whose work ends, and that the models are never in two hands."""

import threading
from collections.abc import Callable

from lisa_video.web.desk import Desk, Stopped


class Visit:
    """Work that goes on until it is told to end, in a thread of its own."""

    def __init__(self, desk: Desk, visitor: str) -> None:
        self.began, self.ended, self.line = threading.Event(), threading.Event(), ""
        self._desk, self._visitor = desk, visitor
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            with self._desk.work(self._visitor) as go_on:
                self.began.set()
                self._until_told(go_on)
        except Stopped as stopped:
            self.line = str(stopped)
        self.ended.set()

    def _until_told(self, go_on: Callable[[], None]) -> None:
        while True:
            go_on()
            self.ended.wait(0.01)


def test_each_ends_only_their_own_and_the_next_gets_the_models() -> None:
    desk = Desk()
    first, second = Visit(desk, "a"), None
    assert first.began.wait(10)
    second = Visit(desk, "b")
    assert not second.began.wait(0.1)
    desk.stop("c")
    assert not first.ended.wait(0.1)
    desk.stop("a")
    assert first.ended.wait(10) and first.line == "stopped"
    assert second.began.wait(10) and not second.ended.is_set()
    desk.stop("b")
    assert second.ended.wait(10)
    with desk.work("a") as go_on:
        desk.stop("b")
        go_on()  # an earlier word, and that of others, is not for this


def test_who_ends_while_waiting_never_begins() -> None:
    desk = Desk()
    first = Visit(desk, "a")
    assert first.began.wait(10)
    waiting = Visit(desk, "b")
    assert not waiting.began.wait(0.1)
    desk.stop("b")
    desk.stop("a")
    assert waiting.ended.wait(10) and not waiting.began.is_set()


def test_closing_waits_for_the_end_of_all_work() -> None:
    desk = Desk()
    visits = [Visit(desk, name) for name in "ab"]
    assert visits[0].began.wait(10)
    desk.close()
    assert all(visit.ended.wait(10) for visit in visits)

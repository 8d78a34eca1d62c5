"""Work shared between processes; two real ones are in the tests of the job."""

import pytest

from lisa_video.errors import UserError
from lisa_video.evaluation.parallel import Failure, FatalError, Processes


def halve(number: int) -> int:
    if number == 13:
        raise FatalError("13: stop")
    if number % 2:
        raise UserError(f"{number}: odd")
    return number // 2


def test_results_come_in_order_with_failures_in_their_places() -> None:
    results = Processes().map(halve, [("b", 4), ("a", 3), ("c", 8)], "halve")
    assert results == {"b": 2, "a": Failure("3: odd"), "c": 4}
    assert list(results) == ["b", "a", "c"]


def test_a_fatal_error_stops_the_run() -> None:
    with pytest.raises(UserError, match="13: stop"):
        Processes().map(halve, [("a", 3), ("b", 13), ("c", 4)], "halve")


def test_a_process_alone_does_everything() -> None:
    alone = Processes()
    assert (alone.rank, alone.count, alone.is_main) == (0, 1, True)


def test_a_bug_is_not_taken_for_a_bad_clip() -> None:
    with pytest.raises(ZeroDivisionError):
        Processes().map(lambda item: 1 // item, [("a", 0)], "divide")

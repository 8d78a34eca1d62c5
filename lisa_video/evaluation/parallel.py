"""Work shared between the processes of `accelerate launch`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

from lisa_video.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


class FatalError(UserError):
    """An item that must stop the run, not be left out."""


@dataclass(frozen=True)
class Failure:
    """An item that could not be used."""

    reason: str
    """One line that names the file."""
    fatal: bool = False


class Processes:
    """This process among those that were launched together, or alone."""

    def __init__(self) -> None:
        self.rank, self.count = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            state = PartialState()
            self.rank, self.count = state.process_index, state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def map(
        self,
        work: Callable[[Item], Result],
        items: Sequence[tuple[str, Item]],
        title: str,
    ) -> dict[str, Result | Failure]:
        """`work(item)` by the item's name, in the order of `items`, in every process.

        Each process does its share. Where `work` raises UserError the result is a `Failure`: an
        error in one process must not leave the others waiting.

        Raises UserError, in every process, where `work` raised FatalError in one.
        """
        mine: list[tuple[str, Any]] = []
        share = items[self.rank :: self.count]
        hidden = None if self.is_main else True
        for name, item in tqdm(share, desc=title, unit="clip", disable=hidden):
            try:
                mine.append((name, work(item)))
            except UserError as error:
                mine.append((name, Failure(str(error), isinstance(error, FatalError))))
        everything = dict(self._gather(mine))
        results = {name: everything[name] for name, _ in items}
        for result in results.values():
            if isinstance(result, Failure) and result.fatal:
                raise UserError(result.reason)
        return results

    def _gather(self, mine: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        if self.count == 1:
            return mine
        from accelerate.utils import gather_object

        gathered: list[tuple[str, Any]] = gather_object(mine)
        return gathered

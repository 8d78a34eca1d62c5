"""Patterns over the dotted names of a network's parameters and layers, as configs give them.

A pattern stands for whole parts of a name, one or several, anywhere in it: `motion_modules`,
`down_blocks.0`, `blocks.block_3`. In it * stands for anything, dots included:
`up_blocks.*.to_q`. Imports nothing heavy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from lisa_video.errors import UserError


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern stands for a part of the name."""
    return fnmatchcase(f".{name}.", f"*.{pattern}.*")


def matched(pattern: str, names: Sequence[str], key: str) -> list[str]:
    """The names that a pattern of the config's `key` stands for, in their order.

    Raises UserError where there is none; it gives the nearest part and those at the top.
    """
    found = [name for name in names if matches(pattern, name)]
    if found:
        return found
    parts = _parts(names, pattern.count(".") + 1)
    nearest = difflib.get_close_matches(pattern, parts, n=1, cutoff=0.0)
    tops = dict.fromkeys(name.split(".")[0] for name in names)
    raise UserError(
        f"{key}: '{pattern}' matches nothing"
        + "".join(f", nearest is '{part}'" for part in nearest)
        + f"; there is {', '.join(tops)}"
    )


def _parts(names: Iterable[str], length: int) -> list[str]:
    """All runs of so many parts, each once."""
    split = (name.split(".") for name in names)
    runs = (
        ".".join(parts[start : start + length])
        for parts in split
        for start in range(len(parts) - length + 1)
    )
    return list(dict.fromkeys(runs))

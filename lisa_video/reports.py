"""What jobs leave behind: a table on the terminal and the same as a JSON file."""

import json
import math
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lisa_video import __version__
from lisa_video.errors import UserError


def check_new_file(path: Path) -> None:
    """Raises UserError where `path` exists already or lies in no folder."""
    if path.exists():
        raise UserError(f"{path}: exists already; give another name or remove it first")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; create it first")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as JSON, whole or not at all; errors as in `check_new_file`.

    NaN and infinity are not JSON: give None for a value that does not exist.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    check_new_file(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write this file: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def json_number(value: float) -> float | None:
    """A measure as JSON can hold it: None for NaN and infinity."""
    return value if math.isfinite(value) else None


def replace_text(path: Path, text: str) -> None:
    """Write a file of a run's own folder, whole or not at all; an earlier one is replaced."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file with another name and the same suffix, then put it in the place of
    `path`."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_unfinished(path: Path) -> bool:
    """Whether a file is what a process left that died in `replace_file`."""
    return re.fullmatch(r"\..+\.\d+\.tmp(\.[^.]+)?", path.name) is not None and path.is_file()


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of aligned columns: the first to the left, the others to the right."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of lisa_video and of the installed distributions named."""
    own = {"python": platform.python_version(), "lisa_video": __version__}
    return own | {package: version(package) for package in packages}

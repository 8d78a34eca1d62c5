"""Folders that appear whole, are replaced whole and go whole, whenever the process is killed.

    .NAME.tmp     NAME being written
    .NAME.old     NAME, about to be replaced
    .NAME.gone    NAME, about to be deleted

Everything is on the disk before it is renamed, so that a power cut leaves no half folder either.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def replace_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new folder beside `path`, then put it in the place of `path`."""
    temporary, old = _aside(path, "tmp"), _aside(path, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        sync_folder(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(temporary, path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Delete a folder; it has left its place before its first file goes."""
    gone = _aside(path, "gone")
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def mend_folders(parent: Path, names: str) -> None:
    """Clear up what killed processes left of the folders in `parent` whose names match `names`."""
    for old in parent.glob(f".{names}.old"):
        path = parent / old.name[1 : -len(".old")]
        if not path.exists():
            os.replace(old, path)
    for ending in ("tmp", "old", "gone"):
        for left in parent.glob(f".{names}.{ending}"):
            shutil.rmtree(left, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Bring a folder and all that is in it onto the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            _sync(Path(root, name))
        _sync(Path(root))


def sync_file(path: Path) -> None:
    """Bring a file onto the disk, where there is one."""
    if path.is_file():
        _sync(path)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and keeps their entries itself
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{ending}")

"""One writer to a folder at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lisa_video.errors import UserError

LOCK_FILE = ".lock"


@contextmanager
def only_writer(folder: Path, lock_file: Path | None = None) -> Iterator[None]:
    """Hold the operating system's lock on `folder`, which exists; it ends with the process.

    `lock_file` is where the lock is kept, `.lock` in the folder unless given.

    Raises UserError where another process holds it.
    """
    lock = FileLock(lock_file or folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{folder}: another run is writing here; wait for it, or give another folder"
        ) from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be locked for writing: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()

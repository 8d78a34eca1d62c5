"""Files of a packed set, in a folder or in object storage, through fsspec."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from lisa_video.errors import UserError


class Storage:
    """The files below a URL such as /data/set, file:///data/set, s3://bucket/set or memory://set.

    Picklable; each process opens a connection of its own.

    Raises UserError where fsspec knows no such kind of storage.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url).rstrip("/")
        self._connection: tuple[int, fsspec.AbstractFileSystem, str] | None = None
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_connection": None}

    def name(self, path: str) -> str:
        """A file's whole name, for messages."""
        return f"{self.url}/{path}"

    def exists(self, path: str) -> bool:
        """Whether there is such a file; UserError where the storage does not answer."""
        filesystem, root = self._open()
        try:
            return bool(filesystem.exists(f"{root}/{path}"))
        except Exception as error:
            raise self._unreadable(path, error) from None

    @property
    def local(self) -> Path | None:
        """The folder, where it is one of this machine."""
        filesystem, root = self._open()
        return Path(root) if "file" in _protocols(filesystem) else None

    def names(self) -> list[str]:
        """Names of the files; UserError where the storage does not answer."""
        filesystem, root = self._open()
        try:
            found = filesystem.ls(root, detail=False) if filesystem.exists(root) else []
        except Exception as error:
            raise self._unreadable("", error) from None
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def size(self, path: str) -> int | None:
        """Bytes of a file; None where there is none."""
        if not self.exists(path):
            return None
        filesystem, root = self._open()
        return int(filesystem.size(f"{root}/{path}"))

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        """A file, or the bytes from `start` to `stop` of it, of which fewer are given at its end.

        Raises UserError where it cannot be read.
        """
        filesystem, root = self._open()
        try:
            data: bytes = filesystem.cat_file(f"{root}/{path}", start=start, end=stop)
        except Exception as error:
            raise self._unreadable(path, error) from None
        return data

    def put(self, local: Path, path: str) -> None:
        """Copy a local file there; it appears whole or not at all.

        Raises UserError where it cannot be written.
        """
        filesystem, root = self._open()
        try:
            filesystem.makedirs(root, exist_ok=True)
            # Object storage shows a file when all of it has come; a folder shows it growing.
            if self.local is None:
                filesystem.put_file(str(local), f"{root}/{path}")
            else:
                _copy_whole(local, self.local / path)
        except Exception as error:
            raise UserError(f"{self.name(path)}: cannot be written: {_reason(error)}") from None

    def _open(self) -> tuple[fsspec.AbstractFileSystem, str]:
        if self._connection is None or self._connection[0] != os.getpid():
            try:
                filesystem, root = url_to_fs(self.url)
            except (ImportError, ValueError, OSError) as error:
                raise UserError(f"{self.url}: {_reason(error)}") from None
            self._connection = os.getpid(), filesystem, root.rstrip("/")
        return self._connection[1:]

    def _unreadable(self, path: str, error: Exception) -> UserError:
        if isinstance(error, FileNotFoundError):
            return UserError(f"{self.name(path)}: no such file")
        return UserError(f"{self.name(path)}: cannot be read: {_reason(error)}")


def _copy_whole(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _protocols(filesystem: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _reason(error: Exception) -> str:
    # Each kind of storage has errors of its own: their first line is what there is to tell.
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""The videos of a folder, and their ids."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from pathlib import Path

from lisa_video.clip_files import VIDEO_SUFFIXES
from lisa_video.extraction.records import Skipped, Source

_READABLE = 48  # letters of a path that its id shows


def find_sources(folder: Path) -> tuple[list[Source], list[Skipped]]:
    """Videos of a folder and of all folders in it, by suffix, in the order of their paths' bytes.

    Hidden files and folders are passed over. Links are not followed, so that they lead nowhere
    else and round no circle; linked folders and videos are among the skipped.
    """
    sources: list[Source] = []
    skipped: list[Skipped] = []

    def note(path: str | Path, reason: str) -> None:
        skipped.append(Skipped(Path(path).relative_to(folder).as_posix(), reason))

    def unreadable(error: OSError) -> None:
        note(error.filename, f"cannot be read: {error.strerror}")

    for top, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if os.path.islink(os.path.join(top, name)):
                note(Path(top, name), "a link to a folder, which is not followed")
        for name in files:
            path = Path(top, name)
            if name.startswith(".") or path.suffix.lower() not in VIDEO_SUFFIXES:
                continue
            relative = path.relative_to(folder).as_posix()
            try:
                status = path.lstat()
            except OSError as error:
                note(path, f"cannot be read: {error.strerror}")
                continue
            if stat.S_ISLNK(status.st_mode):
                note(path, "a link, which is not followed")
            elif not stat.S_ISREG(status.st_mode):
                note(path, "is no ordinary file")
            else:
                identity = source_id(relative)
                sources.append(Source(path, relative, identity, status.st_size, status.st_mtime_ns))
    sources.sort(key=lambda source: os.fsencode(source.relative))
    assert len({source.id for source in sources}) == len(sources)
    return sources, skipped


def source_id(relative: str) -> str:
    """An id for a path: its last readable letters and a hash of all of it.

    It does not depend on the other videos, so that adding some changes no id.
    """
    digest = hashlib.sha256(os.fsencode(relative)).hexdigest()[:12]
    plain = unicodedata.normalize("NFKD", relative.rpartition(".")[0])
    letters = re.sub(r"[^A-Za-z0-9_]+", "-", plain)[-_READABLE:].strip("-")
    return f"{letters}-{digest}" if letters else digest

"""Captions that lie beside videos, or follow from their names."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from lisa_video.errors import UserError

_MOST_BYTES = 1 << 20


def find_caption(video: Path, relative: str, template: str) -> str:
    """The caption of a video, in one line.

    Args:
        video: NAME.txt beside it is the caption, or else "caption" in NAME.json.
        relative: path of the video below its folder, with forward slashes.
        template: caption of a video with neither, see `check_template`.

    Raises:
        UserError: one of the two is there and cannot be used.
    """
    text, record = video.with_suffix(".txt"), video.with_suffix(".json")
    if text.is_symlink() or text.exists():
        caption = _read(text)
    elif record.is_symlink() or record.exists():
        caption = _from_json(record)
    else:
        path = PurePosixPath(relative)
        names = {"stem": path.stem, "folder": path.parent.name, "path": relative}
        caption = template.format(**names)
    # A name may hold bytes that are no UTF-8, and a manifest may not.
    caption = caption.encode(errors="replace").decode()
    return " ".join(caption.split())


def _from_json(path: Path) -> str:
    try:
        record = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise UserError(f"{path.name}: not valid JSON") from None
    caption = record.get("caption") if isinstance(record, dict) else None
    if not isinstance(caption, str):
        raise UserError(f'{path.name}: has no text under the key "caption"')
    return caption


def _read(path: Path) -> str:
    if path.is_symlink():
        raise UserError(f"{path.name}: is a link, which is not followed")
    if not path.is_file():
        raise UserError(f"{path.name}: is no ordinary file")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path.name}: cannot be read: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise UserError(f"{path.name}: too long for a caption")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path.name}: not UTF-8 text") from None

"""Where public sets keep their clips, their splits and their captions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lisa_video.clip_files import IMAGE_SUFFIXES
from lisa_video.errors import UserError
from lisa_video.extraction.records import Skipped, Source
from lisa_video.extraction.sources import find_sources, source_id
from lisa_video.importing.config import ImportDataConfig

Found = tuple[list[Source], list[Skipped]]

IMAGES = "images"
_SPLIT_FOLDERS = ("train", "test", "validation")


def find_clips(config: ImportDataConfig) -> Found:
    """The clips of a set with what it says of them, and what is left out.

    Raises:
        UserError: a folder or list is missing or cannot be read, or there is no clip.
    """
    if not config.source.is_dir():
        raise UserError(f"{config.source}: no such folder")
    sources, skipped = LAYOUTS[config.layout](config)
    if not sources and not skipped:
        raise UserError(f"{config.source}: no clip in the layout '{config.layout}'")
    if config.captions is not None:
        captions = read_captions(config.captions)
        sources = [
            replace(each, caption=captions.get(clip_name(each), each.caption)) for each in sources
        ]
    if config.train_list is not None and config.test_list is not None:
        lists = {"train": read_list(config.train_list), "test": read_list(config.test_list)}
        sources, unlisted = _split_by_lists(sources, lists)
        skipped = skipped + unlisted
    return sources, skipped


def clip_name(source: Source) -> str:
    """The name by which lists and captions know a clip."""
    path = PurePosixPath(source.relative)
    return path.parent.name if source.image_fps else path.stem


def find_image_clips(config: ImportDataConfig) -> Found:
    """TikTok: a folder for each clip, whose folder `images` holds its frames."""
    sources: list[Source] = []
    skipped: list[Skipped] = []
    for folder in sorted(config.source.iterdir(), key=lambda path: os.fsencode(path.name)):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        images = folder / IMAGES
        relative = f"{folder.name}/{IMAGES}"
        if folder.is_symlink() or images.is_symlink():
            skipped.append(Skipped(relative, "a link to a folder, which is not followed"))
        elif not images.is_dir():
            skipped.append(Skipped(folder.name, f"has no folder {IMAGES}"))
        else:
            states = [
                entry.stat(follow_symlinks=False)
                for entry in os.scandir(images)
                if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES
                and entry.is_file(follow_symlinks=False)
            ]
            if not states:
                skipped.append(Skipped(relative, "holds no image"))
                continue
            size = sum(state.st_size for state in states)
            changed = max(state.st_mtime_ns for state in states)
            # The id is read from the path without its last suffix, which a folder has not.
            identity = source_id(f"{folder.name}.{IMAGES}")
            sources.append(
                Source(images, relative, identity, size, changed, image_fps=config.image_fps)
            )
    return sources, skipped


def find_split_videos(config: ImportDataConfig) -> Found:
    """UBC-Fashion: videos, in folders `train` and `test` or in one with a list of each."""
    sources, skipped = find_sources(config.source)
    return [replace(each, split=_folder_split(each), caption="") for each in sources], skipped


def find_camera_videos(config: ImportDataConfig) -> Found:
    """HumanVid: videos in any folders; the camera's path, in text files, has no place here."""
    sources, skipped = find_sources(config.source)
    # A text file beside a video is its camera's path, which must not become its caption.
    return [replace(each, caption="") for each in sources], skipped


LAYOUTS: Mapping[str, Callable[[ImportDataConfig], Found]] = {
    "tiktok": find_image_clips,
    "ubc_fashion": find_split_videos,
    "humanvid": find_camera_videos,
}
"""Name -> what finds its clips."""


def read_list(path: Path) -> set[str]:
    """Names of videos, without folders and suffix, of lines that are names, paths or addresses."""
    lines = (line.split("?")[0].strip() for line in _read_text(path).splitlines())
    return {PurePosixPath(line).stem for line in lines if line}


def read_captions(path: Path) -> dict[str, str]:
    """Captions by name, each in one line, of a folder of text files or of a .json object."""
    if path.is_dir():
        texts = {file.stem: _read_text(file) for file in sorted(path.glob("*.txt"))}
    else:
        try:
            value = json.loads(_read_text(path))
        except (ValueError, RecursionError):
            raise UserError(f"{path}: not valid JSON") from None
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise UserError(f"{path}: should be a JSON object of captions by name")
        texts = {PurePosixPath(name).stem: text for name, text in value.items()}
    if not texts:
        raise UserError(f"{path}: holds no caption")
    return {name: " ".join(text.split()) for name, text in texts.items()}


def _folder_split(source: Source) -> str | None:
    folders = PurePosixPath(source.relative).parts[:-1]
    return next((name for name in _SPLIT_FOLDERS if name in folders), None)


def _split_by_lists(sources: list[Source], lists: Mapping[str, set[str]]) -> Found:
    both = sorted(set.intersection(*lists.values()))
    if both:
        raise UserError(f"'{both[0]}' is in both lists, and {len(both) - 1} more are")
    listed: list[Source] = []
    unlisted: list[Skipped] = []
    for source in sources:
        split = next((name for name, names in lists.items() if clip_name(source) in names), None)
        if split is None:
            unlisted.append(Skipped(source.relative, "is in neither list"))
        else:
            listed.append(replace(source, split=split))
    return listed, unlisted


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None

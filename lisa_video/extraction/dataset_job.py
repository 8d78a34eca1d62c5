"""A folder of videos into a dataset, in a run that may be killed and repeated at any time."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lisa_video.cli import config_to_dict
from lisa_video.detectors import build_detector
from lisa_video.engines import LostJob, map_jobs
from lisa_video.errors import UserError
from lisa_video.extraction.clips import extract_source
from lisa_video.extraction.journal import Journal
from lisa_video.extraction.records import Skipped, Source
from lisa_video.extraction.sources import find_sources
from lisa_video.extraction.video_poses import kept_skeleton
from lisa_video.extraction_config import ExtractPosesConfig
from lisa_video.locking import only_writer
from lisa_video.manifest import (
    CLIP_FOLDER,
    MANIFEST,
    POSE_FOLDER,
    ManifestEntry,
    write_manifest,
)
from lisa_video.reports import replace_text

STATE_FOLDER = ".extraction"
SKIPPED = "skipped.jsonl"
_JOURNAL, _LOCK, _SETTINGS = "journal.jsonl", "lock", "settings.json"
_NO_SETTINGS = ("out", "engine", "workers", "preview")  # the clips are the same whatever they are

Sources = tuple[list[Source], list[Skipped]]
"""What to extract, and what is skipped beforehand."""


def check_folder(config: ExtractPosesConfig, sources: Sources | None = None) -> None:
    """Raises UserError for what is wrong before any video is read; writes nothing.

    `sources` as in `extract_folder`.
    """
    if config.preview is not None:
        raise UserError(f"preview={config.preview}: is for a single video, not for a folder")
    source, out = config.source.resolve(), config.out.resolve()
    if out.is_relative_to(source):
        raise UserError(f"{config.out}: lies in the folder of videos; choose another out")
    if source.is_relative_to(out):
        raise UserError(f"{config.out}: holds the folder of videos; choose another out")
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"{config.out}: is a file; for a folder of videos out is a folder")
    parent = next(path for path in (out, *out.parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"{config.out}: cannot be written; choose another out")
    _check_settings(config)
    found, _ = sources or find_sources(config.source)
    if not found:
        raise UserError(f"{config.source}: no video in this folder or the folders in it")


def extract_folder(config: ExtractPosesConfig, sources: Sources | None = None) -> None:
    """Turn `config.source` into a dataset at `config.out`, or go on with one.

    `sources` None stands for `find_sources(config.source)`.

    Videos that were done, and have not changed since, are not done again; the dataset is the same
    as that of a run without interruption. Clips of videos that are gone by now stay.

    Raises:
        UserError: see `check_folder`; another run is writing there; the disk is full; the
            detector cannot be had; no clip is left in the end.
    """
    state = config.out / STATE_FOLDER
    try:
        for folder in (state, config.out / CLIP_FOLDER, config.out / POSE_FOLDER):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{config.out}: cannot make this folder: {error.strerror}") from None
    with only_writer(config.out, state / _LOCK):
        _check_settings(config)
        kept_skeleton(build_detector(config.detector, weights=config.weights), config.skeleton)
        _write(state / _SETTINGS, json.dumps(_settings(config), indent=2) + "\n")
        videos = config.source.absolute()  # for workers, wherever they run
        found, skipped = sources or find_sources(videos)
        with Journal(state / _JOURNAL, videos) as journal:
            todo = [source for source in found if not journal.holds(source)]
            if [source for source in todo if journal.forget(source)]:
                # It lists clips that are about to change.
                (config.out / MANIFEST).unlink(missing_ok=True)
            _clear_remains(config.out, todo)
            print(f"{config.out}: {len(todo)} of {len(found)} videos to do")
            lost = _run(config, todo, journal)
            _finish(config.out, journal, found, [*skipped, *lost])


def _run(config: ExtractPosesConfig, todo: list[Source], journal: Journal) -> list[Skipped]:
    """Do the videos; gives those whose workers died, which a later run tries again."""
    lost: list[Skipped] = []
    weights = config.weights and config.weights.absolute()
    job = partial(
        extract_source, config=replace(config, out=config.out.absolute(), weights=weights)
    )
    records = map_jobs(job, todo, engine=config.engine, workers=config.workers, desc="videos")
    for record in records:
        if isinstance(record, LostJob):
            lost.append(Skipped(record.item.relative, record.reason))
        else:
            journal.add(record)
    return lost


def _finish(out: Path, journal: Journal, found: list[Source], skipped: list[Skipped]) -> None:
    """Write the manifest and the list of what is skipped, each whole or not at all."""
    given = {source.relative: source for source in found}
    skipped = skipped + [part for record in journal.records() for part in record.skipped]
    skipped.sort(key=lambda part: (os.fsencode(part.source), part.start or 0))
    _write(out / SKIPPED, "".join(_skipped_line(part) for part in skipped))
    clips = sum(len(record.clips) for record in journal.records())
    if not clips:
        raise UserError(f"{out}: no clip to keep; {out / SKIPPED} says why")
    records = journal.records()
    write_manifest(
        out,
        (
            _as_given(clip, given.get(each.source.relative))
            for each in records
            for clip in each.clips
        ),
    )
    print(f"{out}: {clips} clips; {len(skipped)} videos or parts skipped, see {SKIPPED}")


def _as_given(clip: ManifestEntry, source: Source | None) -> ManifestEntry:
    """With the caption and split that its source has now: lists may change between runs."""
    if source is not None and source.caption is not None:
        clip = replace(clip, caption=source.caption)
    if source is not None and source.split is not None:
        clip = replace(clip, split=source.split)
    return clip


def _skipped_line(part: Skipped) -> str:
    line: dict[str, Any] = {"source": part.source}
    if part.start is not None:
        line |= {"start": part.start, "stop": part.stop}
    # In ASCII: names of files may be no UTF-8.
    return json.dumps(line | {"reason": part.reason}) + "\n"


def _settings(config: ExtractPosesConfig) -> dict[str, Any]:
    """What the clips depend on."""
    values = config_to_dict(config) | {"source": str(config.source.resolve())}
    return {key: value for key, value in values.items() if key not in _NO_SETTINGS}


def _check_settings(config: ExtractPosesConfig) -> None:
    """Raises UserError where the output holds something else than this extraction's own."""
    out, path = config.out, config.out / STATE_FOLDER / _SETTINGS
    if not path.exists():
        taken = [MANIFEST, CLIP_FOLDER, POSE_FOLDER]
        held = [name for name in taken if (out / name).is_file() or _is_filled(out / name)]
        if held:
            raise UserError(f"{out}: holds another dataset ({held[0]}); choose another out")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        now = _settings(config)
        changed = [key for key in now if before.get(key) != now[key]]
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{path}: is damaged; choose another out") from None
    if changed:
        key = changed[0]
        raise UserError(
            f"{out}: was begun with {key}={_brief(before.get(key))}, now it is {_brief(now[key])}; "
            "repeat that, or choose another out"
        )


def _brief(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _clear_remains(out: Path, todo: Iterable[Source]) -> None:
    """Remove what killed runs wrote of videos that are not done, or of an earlier state of them."""
    unfinished = {source.id for source in todo}
    pattern = re.compile(r"\.?(?P<clip>(?P<source>.+)-\d{4,})\.(mp4|npz)(\.\d+\.tmp)?")
    for name in (CLIP_FOLDER, POSE_FOLDER):
        for entry in os.scandir(out / name):
            match = pattern.fullmatch(entry.name)
            if match and match["source"] in unfinished:
                os.unlink(entry.path)


def _write(path: Path, text: str) -> None:
    try:
        replace_text(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None

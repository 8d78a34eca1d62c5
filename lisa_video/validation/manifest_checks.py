"""Checks that need the manifest alone, and a look for its files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path

from lisa_video.errors import UserError
from lisa_video.manifest_index import MANIFEST
from lisa_video.manifest_lines import (
    DatasetFiles,
    check_header,
    numbered_blocks,
    parse_entry,
)
from lisa_video.validation.config import FRAME_STEPS, ValidateDataConfig
from lisa_video.validation.findings import Finding, Line

_BLOCK = 1 << 22  # bytes


def read_lines(root: Path) -> tuple[list[Line], list[Finding]]:
    """The right lines of a manifest, and a finding for each other one.

    Raises:
        UserError: there is no manifest, or its first line is not right.
    """
    path = root / MANIFEST
    lines: list[Line] = []
    findings: list[Finding] = []
    for number, text in raw_lines(root):
        try:
            lines.append(Line(number, parse_entry(text, path, number)))
        except UserError as error:
            problem = str(error).removeprefix(f"{path}: line {number}: ")
            findings.append(Finding(number, "", "line", problem))
    return lines, findings


def raw_lines(root: Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a manifest behind its header, by number, without their ends; errors as above."""
    path = root / MANIFEST
    if not path.is_file():
        raise UserError(f"{root}: not a dataset, it has no {MANIFEST}")
    try:
        with path.open("rb") as file:
            check_header(file.readline(_BLOCK).removesuffix(b"\n"), path)
            for first, block in numbered_blocks(file, path, _BLOCK):
                yield from enumerate(block.removesuffix(b"\n").split(b"\n"), start=first)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def check_lines(root: Path, lines: Sequence[Line], config: ValidateDataConfig) -> list[Finding]:
    """Findings of all checks of this file."""
    return [
        *_repeated_ids(lines),
        *_files(root, lines),
        *_duplicates(lines),
        *_leaks(lines, config),
        *(finding for line in lines for finding in _limits(line, config)),
    ]


def _repeated_ids(lines: Iterable[Line]) -> Iterator[Finding]:
    first_seen: dict[str, int] = {}
    for line in lines:
        first = first_seen.setdefault(line.entry.id, line.number)
        if first != line.number:
            yield line.finding("id", f"already that of line {first}")


def _files(root: Path, lines: Iterable[Line]) -> Iterator[Finding]:
    files = DatasetFiles(root)
    for line in lines:
        for key in ("video", "poses"):
            value = getattr(line.entry, key)
            problem = files.problem(value)
            if problem:
                yield line.finding("file", f"'{key}' is {value!r}, {problem}")


def _duplicates(lines: Iterable[Line]) -> Iterator[Finding]:
    first_seen: dict[tuple[str, str], int] = {}
    for line in lines:
        first = first_seen.setdefault((line.entry.split, line.entry.sha256), line.number)
        if first != line.number:
            yield line.finding("duplicate", f"the same video as that of line {first}")


def _leaks(lines: Sequence[Line], config: ValidateDataConfig) -> Iterator[Finding]:
    """Clips that share something with another split, a smaller one.

    What both have stays in the smaller split: scores are worth more there than clips in training.
    """
    sizes = Counter(line.entry.split for line in lines)
    pattern = re.compile(config.source_of_id)

    def source(line: Line) -> str | None:
        match = pattern.fullmatch(line.entry.id)
        return match[1] if match else None

    shared: Sequence[tuple[str, Callable[[Line], Hashable]]] = (
        ("the same video", lambda line: line.entry.sha256),
        ("the same video file", lambda line: line.entry.video),
        ("the same source", source),
    )
    told: set[int] = set()
    for what, key in shared:
        groups: dict[Hashable, list[Line]] = defaultdict(list)
        for line in lines:
            groups[key(line)].append(line)
        groups.pop(None, None)
        for group in groups.values():
            keeper = min(group, key=lambda line: (sizes[line.entry.split], line.entry.split))
            for line in group:
                if line.entry.split != keeper.entry.split and line.number not in told:
                    told.add(line.number)
                    where = f"line {keeper.number} of split '{keeper.entry.split}'"
                    yield line.finding("leak", f"split '{line.entry.split}' has {what} as {where}")


def _limits(line: Line, config: ValidateDataConfig) -> Iterator[Finding]:
    entry = line.entry
    if entry.frames < config.span:
        yield line.finding(
            "length",
            f"{entry.frames} frames, a window of {config.window} with stride {config.stride} "
            f"spans {config.span}",
        )
    step = 1 if config.backbone is None else FRAME_STEPS[config.backbone]
    if (entry.frames - 1) % step:
        fitting = 1 + (entry.frames - 1) // step * step
        yield line.finding(
            "frames",
            f"{entry.frames} frames, {config.backbone} takes 1 + {step}k: the first {fitting}",
        )
    if not config.min_fps <= entry.fps <= config.max_fps:
        yield line.finding(
            "fps", f"{entry.fps:g} frames per second, not {config.min_fps:g} to {config.max_fps:g}"
        )
    if min(entry.width, entry.height) < config.min_side:
        yield line.finding(
            "size", f"{entry.width}x{entry.height} pixels, a side under {config.min_side}"
        )

"""What validation found, as tables on the terminal and as one page that needs nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from html import escape

import numpy as np

from lisa_video.engines import LostJob, map_jobs
from lisa_video.html_pages import html_image, html_page, html_table
from lisa_video.reports import format_table
from lisa_video.validation.config import CHECKS, ValidateDataConfig
from lisa_video.validation.findings import Finding, Line, Validation
from lisa_video.validation.thumbnails import Thumbnail, make_thumbnail

_SHOWN = 20  # findings on the terminal
_LISTED = 2000  # findings on the page
_STYLE = """
.error { color: #a01818; } .warning { color: #8a4b00; }
.clips { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; width: 13rem; }
figcaption { font-size: 13px; overflow-wrap: anywhere; }
"""


def format_validation(found: Validation) -> str:
    """Tables of splits and of checks, and the first findings."""
    parts = [format_table(_SPLIT_HEADER, list(_split_rows(found)))]
    if found.findings:
        parts.append(format_table(["check", "level", "clips", "finds"], list(_check_rows(found))))
        shown = sorted(found.findings, key=lambda finding: found.levels[finding.check])[:_SHOWN]
        parts.append("\n".join(_sentence(found, finding) for finding in shown))
        if len(found.findings) > _SHOWN:
            parts.append(f"... and {len(found.findings) - _SHOWN} more; html or json lists them")
    errors, warnings = (len(found.of_level(level)) for level in ("error", "warning"))
    parts.append(f"{len(found.lines)} clips, {errors} errors, {warnings} warnings")
    return "\n\n".join(parts)


def validation_page(found: Validation, config: ValidateDataConfig) -> str:
    """The whole document: tables, thumbnails with skeletons, findings."""
    title = f"Validation of {config.dataset}"
    body = [
        f"<h1>{escape(title)}</h1>",
        html_table(_SPLIT_HEADER, _split_rows(found)),
        "<h2>Checks</h2>",
        html_table(["check", "level", "clips", "finds"], _check_rows(found), _cell),
        "<h2>Clips</h2>",
        f'<div class="clips">{"".join(_figures(found, config))}</div>',
        "<h2>Findings</h2>",
        *_findings(found),
    ]
    return html_page(title, body, _STYLE)


_SPLIT_HEADER = ["split", "clips", "frames", "minutes", "sizes", "fps"]


def _split_rows(found: Validation) -> Iterator[list[str]]:
    splits: dict[str, list[Line]] = defaultdict(list)
    for line in found.lines:
        splits[line.entry.split].append(line)
    for name, lines in sorted(splits.items()):
        entries = [line.entry for line in lines]
        sizes = sorted({(entry.width, entry.height) for entry in entries})
        rates = sorted({entry.fps for entry in entries})
        yield [
            name,
            str(len(entries)),
            str(sum(entry.frames for entry in entries)),
            f"{sum(entry.frames / entry.fps for entry in entries) / 60:.1f}",
            _range([f"{width}x{height}" for width, height in sizes]),
            _range([f"{rate:g}" for rate in rates]),
        ]


def _range(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]} ({len(values)})"


def _check_rows(found: Validation) -> Iterator[list[str]]:
    for check, (_, about) in CHECKS.items():
        clips = {finding.number for finding in found.findings if finding.check == check}
        if clips:
            yield [check, found.levels[check], str(len(clips)), about]


def _sentence(found: Validation, finding: Finding) -> str:
    clip = f" clip '{finding.id}'" if finding.id else ""
    level = found.levels[finding.check]
    return f"{level}: line {finding.number}{clip}: {finding.check}: {finding.problem}"


def _findings(found: Validation) -> Iterator[str]:
    rows = (
        [str(each.number), each.id, found.levels[each.check], each.check, each.problem]
        for each in found.findings[:_LISTED]
    )
    yield html_table(["line", "clip", "level", "check", "problem"], rows, _cell)
    if len(found.findings) > _LISTED:
        yield f"<p>... and {len(found.findings) - _LISTED} more.</p>"


def _cell(text: str) -> str:
    return f'<b class="{text}">{text}</b>' if text in ("error", "warning") else escape(text)


def _figures(found: Validation, config: ValidateDataConfig) -> Iterator[str]:
    problems: dict[int, list[Finding]] = defaultdict(list)
    for finding in found.findings:
        problems[finding.number].append(finding)
    chosen = _chosen(found, set(problems), config.thumbnails)
    for line, thumbnail in _thumbnails(chosen, config):
        text = "no picture"
        if thumbnail.jpeg is not None:
            about = f"frame of {line.entry.id} with its poses"
            text = html_image(thumbnail.jpeg, "jpeg", about)
        notes = "".join(
            f'<br><span class="{found.levels[each.check]}">{escape(each.problem)}</span>'
            for each in problems[line.number]
        )
        caption = f"<b>{escape(line.entry.id)}</b> {escape(line.entry.caption)}{notes}"
        yield f"<figure>{text}<figcaption>{caption}</figcaption></figure>"


def _chosen(found: Validation, flagged: set[int], count: int) -> list[Line]:
    """Clips with findings first, then sound ones at equal distances."""
    bad = [line for line in found.lines if line.number in flagged][:count]
    sound = [line for line in found.lines if line.number not in flagged]
    places = np.linspace(0, len(sound) - 1, min(count - len(bad), len(sound))).round()
    return bad + [sound[int(place)] for place in places]


def _thumbnails(
    lines: Sequence[Line], config: ValidateDataConfig
) -> Iterator[tuple[Line, Thumbnail]]:
    job = partial(make_thumbnail, root=config.dataset)
    made = {line.number: Thumbnail(line.number, None) for line in lines}
    for result in map_jobs(
        job, lines, engine=config.engine, workers=config.processes, desc="thumbnails"
    ):
        if not isinstance(result, LostJob):
            made[result.number] = result
    return ((line, made[line.number]) for line in lines)

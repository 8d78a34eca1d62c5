"""The report of a training run as one HTML page that stands alone.

What lies in the folder of a run may come from anywhere: all text is escaped, links that lead out of
the folder are refused, and videos are embedded up to a size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

import yaml

from lisa_video.errors import UserError
from lisa_video.html_pages import html_page, html_picture, html_table, html_video
from lisa_video.report_config import ReportConfig
from lisa_video.reports import check_new_file, replace_text
from lisa_video.training.report_notes import notes
from lisa_video.training.run_figures import Row
from lisa_video.training.run_folder import LOG_FILE, VIDEOS_FOLDER, read_log
from lisa_video.training.run_record import RECORD_FILE, RunPart, RunSummary, read_record
from lisa_video.video import probe_video, read_video

REPORT_FILE = "report.html"
_EARLIER_STEPS = 4  # validations before the newest that are shown
_MIB = 2**20

_STYLE = """
h1 small { font-size: 1rem; font-weight: normal; padding: .1rem .6rem; border-radius: 1rem;
           background: #e8e8e4; vertical-align: middle; }
h1 small.failed, h1 small.killed, h1 small.interrupted { background: #f6d5d0; }
h1 small.finished { background: #d7ecd9; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1rem; }
.videos { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1rem; }
.videos figure { margin: 0; } figcaption { font-size: 13px; overflow-wrap: anywhere; }
.videos video, .videos img { width: 100%; }
.warning { color: #8a4b00; } li { margin: .3rem 0; }
td:first-child { white-space: nowrap; } td { font-variant-numeric: tabular-nums; }
details { margin: 1rem 0; } summary { cursor: pointer; }
"""

MEANINGS = {
    "loss": "total loss, mean of the last tenth of the log",
    "main": "loss of the controlled prediction",
    "alignment": "alignment loss, before its weight",
    "ratio": "alignment loss / target norm; 1: the decoder explains nothing",
    "explained": "share of the likelihood target that control explains, training batches",
    "probe/true": "held-out loss with true poses",
    "probe/shuffled": "held-out loss with another clip's poses",
    "probe/none": "held-out loss without poses",
    "probe/prior": "held-out loss of the backbone alone",
    "probe/gap": "adherence gap: shuffled - true",
    "probe/explained": "share of the likelihood target that control explains, held out",
    "validation/pck@0.1": "joints of generated clips within 0.1 of the body's size",
    "validation/pck@0.2": "within 0.2",
    "validation/keypoint_distance": "mean distance of joints, in sizes of the body",
    "validation/ceiling_pck@0.1": "the same detector on the true clips",
    "validation/ceiling_pck@0.2": "the same",
    "validation/ceiling_keypoint_distance": "the same",
    "validation/seconds": "one validation",
    "step_s": "median seconds of a step, without waiting for clips",
    "data_share": "share of the time that went into reading and encoding clips",
    "clips_s": "clips a second, all processes",
    "frames_s": "video frames a second, all processes",
    "memory_gib": "peak memory of the main process, GiB",
}
"""What the figures of run.json are."""


def check_report(config: ReportConfig) -> None:
    """Raise UserError where there is no run, or the page cannot be written; write nothing."""
    _inside(config.run, config.run / RECORD_FILE)
    read_record(config.run)
    if config.html is not None:
        check_new_file(config.html)


def write_report(config: ReportConfig) -> Path:
    """Write the page and give its path.

    Raises UserError as `check_report`, and where a file of the run cannot be read or lies outside.
    """
    check_report(config)
    page = config.run / REPORT_FILE if config.html is None else config.html
    text = report_page(config.run, videos_mib=config.videos_mib)
    try:
        replace_text(page, text)
    except OSError as error:
        raise UserError(f"{page}: cannot write this file: {error.strerror}") from None
    return page


def report_page(folder: Path, *, videos_mib: float = ReportConfig.videos_mib) -> str:
    """The whole page of the run in `folder`; UserError as `write_report`."""
    from lisa_video.training.report_curves import curves

    run, rows = read_record(folder), _read_rows(folder)
    title = f"Training: {folder.absolute().name}"
    body = [
        f"<h1>{escape(title)} <small class='{escape(run.status)}'>{escape(run.status)}</small></h1>",
        f"<p>{escape(_subtitle(run, rows))}</p>",
        "<ul>",
        *(
            f"<li{' class=warning' if note.warning else ''}>{escape(note.text)}</li>"
            for note in notes(run, rows)
        ),
        "</ul>",
        *_videos(folder, round(videos_mib * _MIB)),
        "<h2>Curves</h2>",
        f'<div class="curves">{"".join(curves(rows))}</div>',
        "<h2>Figures</h2>",
        html_table(["", "value", ""], _figure_rows(run)),
        "<h2>The run</h2>",
        html_table([], _run_rows(run)),
        *_history(run),
        "<details><summary>Settings</summary>",
        f"<pre>{escape(yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True))}</pre>",
        "</details>",
    ]
    return html_page(title, body, _STYLE)


def _read_rows(folder: Path) -> list[Row]:
    _inside(folder, folder / LOG_FILE)
    try:
        rows = read_log(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder / LOG_FILE}: not a readable log: {error}") from None
    if not all(isinstance(row, dict) and type(row.get("step")) is int for row in rows):
        raise UserError(f"{folder / LOG_FILE}: not the log of a training run")
    return list(rows)


def _inside(folder: Path, path: Path) -> None:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: is a link that leads out of the folder of the run")


def _subtitle(run: RunSummary, rows: Sequence[Row]) -> str:
    step = max(run.step, rows[-1]["step"] if rows else 0)
    objective = run.config.get("objective", "")
    hours = sum(_seconds(part) for part in (*run.history, run)) / 3600
    return (
        f"{objective} objective, step {step} of {run.steps}, {_duration(hours)} in all, "
        f"last heard of {run.updated}"
    )


def _figure_rows(run: RunSummary) -> Iterator[list[str]]:
    for name, value in run.figures.items():
        if value is not None:
            yield [name, f"{value:.4g}", MEANINGS.get(name, "")]


def _run_rows(run: RunSummary) -> Iterator[list[str]]:
    yield ["command", " ".join(run.command)]
    yield ["started", run.started]
    yield ["ended", run.ended or "not yet"]
    yield ["backbone", f"{run.backbone.get('kind')} {run.backbone.get('path')}"]
    yield ["its weights", run.backbone.get("fingerprint", "")]
    yield ["clips", run.data]
    yield ["commit", run.git or "not a checkout"]
    yield ["source files", run.sources]
    yield ["seeds", ", ".join(f"{name} {seed}" for name, seed in run.seeds.items())]
    known = {name: value for name, value in run.hardware.items() if value not in (None, [])}
    yield ["machine", ", ".join(f"{name} {value}" for name, value in known.items())]
    yield ["versions", ", ".join(f"{name} {value}" for name, value in run.versions.items())]


def _history(run: RunSummary) -> Iterator[str]:
    if not run.history:
        return
    header = ["started", "ended", "steps", "how", "why", "commit", "clips", "processes"]
    yield "<h2>Its parts</h2>"
    yield html_table(header, (_part_row(part) for part in (*run.history, run)))


def _part_row(part: RunPart) -> list[str]:
    return [
        part.started,
        part.ended or "",
        f"{part.first_step} to {part.step}",
        part.status,
        part.reason or "",
        (part.git or "")[:12],
        part.data[:12],
        str(part.hardware.get("processes", "")),
    ]


def _videos(folder: Path, budget: int) -> Iterator[str]:
    """The newest validation, and some before it, folded away; `budget` is in bytes."""
    steps = sorted((folder / VIDEOS_FOLDER).glob("step_" + "[0-9]" * 8))
    if not steps:
        return
    *earlier, newest = steps
    yield f"<h2>Held-out clips at step {int(newest.name[5:])}</h2>"
    text, budget = _shown(folder, newest, budget)
    yield text
    stride = -(-len(earlier) // _EARLIER_STEPS) or 1
    for step in reversed(earlier[::stride]):
        text, budget = _shown(folder, step, budget)
        yield f"<details><summary>at step {int(step.name[5:])}</summary>{text}</details>"


def _shown(folder: Path, step: Path, budget: int) -> tuple[str, int]:
    """Videos of one validation, stills of those that the budget is too small for; what is left."""
    figures = []
    for path in sorted(step.glob("*.mp4")):
        _inside(folder, path)
        size = path.stat().st_size
        if size <= budget:
            budget -= size
            media = html_video(path.read_bytes(), path.stem)
        else:
            middle = probe_video(path).frames // 2
            media = html_picture(read_video(path, [middle]).frames[0], path.stem, "jpeg")
        figures.append(f"<figure>{media}<figcaption>{escape(path.stem)}</figcaption></figure>")
    return f'<div class="videos">{"".join(figures)}</div>', budget


def _seconds(part: RunPart) -> float:
    """From its start to when it was last heard of; 0 where the record does not say."""
    try:
        start, end = (datetime.fromisoformat(text) for text in (part.started, part.updated))
        return (end - start).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"

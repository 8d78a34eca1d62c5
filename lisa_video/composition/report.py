"""The result of a composition for people: a table, and a sheet of examples."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from lisa_video.composition.run import ALL, METRICS, NONE, Composition
from lisa_video.gallery import contact_sheet
from lisa_video.reports import format_table, replace_file, replace_text


def write_composition(result: Composition, folder: Path) -> None:
    """Write results.json, report.md and sheet.png into `folder`."""
    values = json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n"
    replace_text(folder / "results.json", values)
    replace_text(folder / "report.md", report_text(result))
    rows = [("true clip", result.truth)]
    rows += [
        (f"{objective}: {acting}", clip) for (objective, acting), clip in result.examples.items()
    ]
    replace_file(folder / "sheet.png", lambda path: Image.fromarray(contact_sheet(rows)).save(path))


def report_text(result: Composition) -> str:
    """Markdown with the table."""
    config = result.config
    rows = [
        [
            f"{objective}, {acting}",
            *(f"{result.scores[objective, acting][name]:.3f}" for name in METRICS),
        ]
        for objective in config.objectives
        for acting in (NONE, *config.controls, ALL)
    ]
    rows.append(["true clips", *(f"{result.ceiling[name]:.3f}" for name in METRICS)])
    scales = ", ".join(
        f"{control} {scale:g}"
        for control, scale in zip(config.controls, config.scales, strict=True)
    )
    return (
        f"# Composition\n\n{' and '.join(config.controls)}, each trained apart for "
        f"{config.training.steps} steps; {config.score.clips} held-out clips, "
        f"{len(config.seeds)} seeds; together with scales {scales}.\n\n"
        f"```\n{format_table(['objective, what acts', *METRICS], rows)}\n```\n\n![examples](sheet.png)\n"
    )

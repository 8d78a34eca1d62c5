"""Settings of the job that writes the report of a training run. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lisa_video.errors import UserError


@dataclass(frozen=True)
class ReportConfig:
    """Write the report of a training run, finished or not, as one page that stands alone."""

    run: Path
    """Folder of the run; may come without a flag."""
    html: Path | None = None
    """Page to write (.html), which must not exist; null: report.html in the folder of the run,
    whose earlier one is replaced."""
    videos_mib: float = 24.0
    """Most that the videos on the page may take; those beyond are shown as stills."""

    def __post_init__(self) -> None:
        if self.html is not None and self.html.suffix != ".html":
            raise UserError(f"html={self.html}: a page ends in .html")
        if not self.videos_mib >= 0:
            raise UserError(f"videos_mib={self.videos_mib}: must be at least 0")

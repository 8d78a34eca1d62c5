"""What validation finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lisa_video.manifest_lines import ManifestEntry
from lisa_video.validation.config import Level


@dataclass(frozen=True)
class Finding:
    """Something about one clip."""

    number: int
    """Line of the manifest, counted from 1."""
    id: str
    """Of the clip; empty where the line does not tell."""
    check: str
    """Key of `CHECKS`."""
    problem: str
    """One line."""


@dataclass(frozen=True)
class Line:
    """A right line of the manifest."""

    number: int
    entry: ManifestEntry

    def finding(self, check: str, problem: str) -> Finding:
        """Something about this clip."""
        return Finding(self.number, self.entry.id, check, problem)


@dataclass(frozen=True)
class Validation:
    """Everything found, in the order of lines."""

    lines: Sequence[Line]
    """The lines that are right."""
    findings: Sequence[Finding]
    levels: dict[str, Level]
    """By check."""

    def of_level(self, level: Level) -> list[Finding]:
        """Findings that count as such."""
        return [finding for finding in self.findings if self.levels[finding.check] == level]

    @property
    def bad_lines(self) -> set[int]:
        """Numbers of the lines with an error."""
        return {finding.number for finding in self.of_level("error")}

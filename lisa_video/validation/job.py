"""Validating a dataset, from the manifest to the cleaned one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from lisa_video.engines import LostJob, map_jobs
from lisa_video.errors import UserError
from lisa_video.manifest_index import MANIFEST
from lisa_video.reports import check_new_file, write_json
from lisa_video.validation.clip_checks import check_clip
from lisa_video.validation.config import CHECKS, ValidateDataConfig
from lisa_video.validation.findings import Finding, Line, Validation
from lisa_video.validation.manifest_checks import check_lines, raw_lines, read_lines
from lisa_video.validation.report import format_validation, validation_page

CLEANED = "manifest.cleaned.jsonl"


def check_validation(config: ValidateDataConfig) -> None:
    """Raises UserError where there is no dataset or a file to write exists; writes nothing."""
    if not config.dataset.is_dir():
        raise UserError(f"{config.dataset}: no such dataset folder")
    if not (config.dataset / MANIFEST).is_file():
        raise UserError(f"{config.dataset}: not a dataset, it has no {MANIFEST}")
    new = [config.html, config.json, config.dataset / CLEANED if config.fix else None]
    for path in new:
        if path is not None:
            check_new_file(path)


def run_validation(config: ValidateDataConfig) -> bool:
    """Validate, print the table and write what is asked for; True where there is no error.

    Raises:
        UserError: as `check_validation`; the manifest's first line is not right; a file cannot be
            written; nothing would be left of the manifest.
    """
    found = validate(config)
    print(format_validation(found))
    if config.json is not None:
        write_json(config.json, {"findings": _as_json(found)})
    if config.html is not None:
        _write_new(config.html, validation_page(found, config).encode())
    if config.fix:
        kept = write_cleaned(config.dataset, found.bad_lines)
        print(f"{config.dataset / CLEANED}: {kept} clips; rename it to {MANIFEST} to use it")
    return not found.of_level("error")


def validate(config: ValidateDataConfig) -> Validation:
    """All findings but those that are off."""
    lines, findings = read_lines(config.dataset)
    if not lines and not findings:
        raise UserError(f"{config.dataset / MANIFEST}: lists no clip")
    findings += check_lines(config.dataset, lines, config)
    if not config.metadata_only:
        without_files = {finding.number for finding in findings if finding.check == "file"}
        todo = [line for line in lines if line.number not in without_files]
        findings += _check_clips(todo, config)
    order = {check: place for place, check in enumerate(CHECKS)}
    levels = {check: config.level(check) for check in CHECKS}
    findings = [finding for finding in findings if levels[finding.check] != "off"]
    findings.sort(key=lambda finding: (finding.number, order[finding.check], finding.problem))
    return Validation(lines, findings, levels)


def write_cleaned(root: Path, bad_lines: set[int]) -> int:
    """Write the manifest without some lines beside it, the others as they are; gives their number.

    Raises UserError where no line would be left, or the file exists or cannot be written.
    """
    header = (root / MANIFEST).read_bytes().split(b"\n", 1)[0]
    kept = [text for number, text in raw_lines(root) if number not in bad_lines]
    if not kept:
        raise UserError(f"{root / MANIFEST}: every clip has an error, nothing is left to write")
    _write_new(root / CLEANED, b"".join(line + b"\n" for line in [header, *kept]))
    return len(kept)


def _check_clips(lines: Sequence[Line], config: ValidateDataConfig) -> list[Finding]:
    findings: list[Finding] = []
    job = partial(check_clip, config=config)
    for result in map_jobs(
        job, lines, engine=config.engine, workers=config.processes, desc="clips"
    ):
        if isinstance(result, LostJob):
            findings.append(result.item.finding("video", result.reason))
        else:
            findings += result
    return findings


def _as_json(found: Validation) -> list[dict[str, object]]:
    return [asdict(finding) | {"level": found.levels[finding.check]} for finding in found.findings]


def _write_new(path: Path, content: bytes) -> None:
    check_new_file(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write this file: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)

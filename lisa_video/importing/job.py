"""Importing a set: find its clips, then extract as from any folder."""

from __future__ import annotations

from lisa_video.detectors import check_detector
from lisa_video.errors import UserError
from lisa_video.extraction.dataset_job import check_folder, extract_folder
from lisa_video.importing.config import ImportDataConfig
from lisa_video.importing.layouts import find_clips


def check_import(config: ImportDataConfig) -> None:
    """Raises UserError for what is wrong before any frame is read; writes nothing."""
    check_detector(config.detector)
    if config.weights is not None and not config.weights.is_dir():
        raise UserError(f"{config.weights}: no such folder of weights")
    check_folder(config, find_clips(config))


def run_import(config: ImportDataConfig) -> None:
    """Write the dataset, or go on with one; errors as in `extract_folder` and `find_clips`."""
    extract_folder(config, find_clips(config))

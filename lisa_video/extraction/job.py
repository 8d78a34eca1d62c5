"""The job: one video or a folder of them."""

from __future__ import annotations

from lisa_video.detectors import check_detector
from lisa_video.errors import UserError
from lisa_video.extraction.dataset_job import check_folder, extract_folder
from lisa_video.extraction.video_poses import check_video, extract_video
from lisa_video.extraction_config import ExtractPosesConfig


def check_extraction(config: ExtractPosesConfig) -> None:
    """Raises UserError for what is wrong before any frame is read; writes nothing."""
    check_detector(config.detector)
    if not config.source.exists():
        raise UserError(f"{config.source}: no such video or folder")
    if config.weights is not None and not config.weights.is_dir():
        raise UserError(f"{config.weights}: no such folder of weights")
    if config.source.is_dir():
        check_folder(config)
    else:
        check_video(config)


def extract(config: ExtractPosesConfig) -> None:
    """Of a video a pose file, of a folder a dataset; errors as in the functions for each."""
    if config.source.is_dir():
        extract_folder(config)
    else:
        extract_video(config)

"""Find the poses of a person in a video and save them as a pose file.

python pipelines/extract_poses.py --config configs/extract_poses.yaml --video clip.mp4
"""

from lisa_video.cli import run_job
from lisa_video.extraction_config import ExtractPosesConfig


def check(config: ExtractPosesConfig) -> None:
    from lisa_video.extraction import check_extraction

    check_extraction(config)


def run(config: ExtractPosesConfig) -> None:
    from lisa_video.extraction import extract

    extract(config)


if __name__ == "__main__":
    run_job(ExtractPosesConfig, run, check=check, description=__doc__)

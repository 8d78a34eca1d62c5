"""Find the poses in a video, or turn a folder of videos into a training set.

python pipelines/extract_poses.py clip.mp4 --out clip.npz
python pipelines/extract_poses.py videos --out my_set --config configs/extract_poses.yaml
"""

from lisa_video.cli import run_job
from lisa_video.extraction_config import ExtractPosesConfig


def check(config: ExtractPosesConfig) -> None:
    from lisa_video.extraction.job import check_extraction

    check_extraction(config)


def run(config: ExtractPosesConfig) -> None:
    from lisa_video.extraction.job import extract

    extract(config)


if __name__ == "__main__":
    run_job(ExtractPosesConfig, run, check=check, description=__doc__, positional="source")

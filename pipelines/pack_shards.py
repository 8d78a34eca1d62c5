"""Pack the clips that a training reads into WebDataset tar shards, in a folder or object storage:
their videos, or, where data.cache is set, their encodings. It takes the settings of the training.

python pipelines/pack_shards.py --config configs/animatediff/cached_lisa.yaml --pack_to s3://bucket/set
"""

from lisa_video.cli import run_job
from lisa_video.packing.config import PackConfig


def check(config: PackConfig) -> None:
    from lisa_video.packing.job import check

    check(config)


def run(config: PackConfig) -> None:
    from lisa_video.packing.job import run

    run(config)


if __name__ == "__main__":
    run_job(PackConfig, run, check=check, description=__doc__)

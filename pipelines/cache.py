"""Encode the clips and captions that a training reads, once, into the folder data.cache. It takes the
settings of the training; repeated, it encodes only what is missing or has changed.

python pipelines/cache.py --config configs/animatediff/cached_lisa.yaml
python pipelines/cache.py --config configs/animatediff/cached_lisa.yaml --engine ray --encoders 8
"""

from lisa_video.caching.config import CacheConfig
from lisa_video.cli import run_job


def check(config: CacheConfig) -> None:
    from lisa_video.caching.job import check

    check(config)


def run(config: CacheConfig) -> None:
    from lisa_video.caching.job import run

    run(config)


if __name__ == "__main__":
    run_job(CacheConfig, run, check=check, description=__doc__)

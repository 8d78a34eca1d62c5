"""Generate a video that follows the poses of a pose file or a driving video, and a prompt.

python pipelines/generate.py --config configs/animatediff/generate.yaml
"""

from lisa_video.cli import run_job
from lisa_video.generation_config import GenerateConfig


def check(config: GenerateConfig) -> None:
    from lisa_video.generation import check_generation

    check_generation(config)


def run(config: GenerateConfig) -> None:
    from lisa_video.generation import generate

    generate(config)
    print(f"video written to {config.output}")


if __name__ == "__main__":
    run_job(GenerateConfig, run, check=check, description=__doc__)

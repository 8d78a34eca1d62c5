"""Train side networks for several controls apart, use them together, and score each control.

python pipelines/compose.py --config configs/animatediff/compose.yaml
"""

from lisa_video.cli import run_job
from lisa_video.composition.config import ComposeConfig


def check(config: ComposeConfig) -> None:
    from lisa_video.composition.run import check_composition

    check_composition(config)


def run(config: ComposeConfig) -> None:
    from lisa_video.composition.report import write_composition
    from lisa_video.composition.run import compose

    folder = config.training.output
    write_composition(compose(config), folder)
    print((folder / "report.md").read_text())


if __name__ == "__main__":
    run_job(ComposeConfig, run, check=check, description=__doc__)

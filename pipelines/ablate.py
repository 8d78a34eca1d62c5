"""Train arms that differ in declared settings, from the same starts, and compare them by steps and by
seconds.

python pipelines/ablate.py --config configs/animatediff/ablate.yaml
"""

from lisa_video.ablation.config import AblateConfig
from lisa_video.cli import run_job


def check(config: AblateConfig) -> None:
    from lisa_video.ablation.run import check_ablation

    check_ablation(config)


def run(config: AblateConfig) -> None:
    from lisa_video.ablation.run import ablate, write_ablation

    folder = config.training.output
    write_ablation(ablate(config), folder)
    print((folder / "report.md").read_text())


if __name__ == "__main__":
    run_job(AblateConfig, run, check=check, description=__doc__)

"""Train both objectives over seeds and a declared grid from the same starts, and report the curves.

python pipelines/compare.py --config configs/animatediff/compare.yaml
"""

from lisa_video.cli import run_job
from lisa_video.comparison.config import CompareConfig


def check(config: CompareConfig) -> None:
    from lisa_video.comparison.run import check_comparison

    check_comparison(config)


def run(config: CompareConfig) -> None:
    from lisa_video.comparison.run import compare, write_comparison

    folder = config.training.output
    write_comparison(compare(config), folder)
    print((folder / "report.md").read_text())


if __name__ == "__main__":
    run_job(CompareConfig, run, check=check, description=__doc__)

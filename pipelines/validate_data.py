"""Check a dataset before it is trained on: manifest, videos, poses, duplicates, leaks between splits.

python pipelines/validate_data.py my_set --html report.html

The exit code is 1 where there is an error, and 0 where there are warnings at most.
"""

from lisa_video.cli import run_job
from lisa_video.validation.config import ValidateDataConfig


def check(config: ValidateDataConfig) -> None:
    from lisa_video.validation.job import check_validation

    check_validation(config)


def run(config: ValidateDataConfig) -> None:
    from lisa_video.validation.job import run_validation

    if not run_validation(config):
        raise SystemExit(1)


if __name__ == "__main__":
    run_job(ValidateDataConfig, run, check=check, description=__doc__, positional="dataset")

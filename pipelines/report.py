"""Write the report of a training run, finished, running or interrupted, as one HTML page.

python pipelines/report.py outputs/train_lisa
"""

from lisa_video.cli import run_job
from lisa_video.report_config import ReportConfig


def check(config: ReportConfig) -> None:
    from lisa_video.training.report import check_report

    check_report(config)


def run(config: ReportConfig) -> None:
    from lisa_video.training.report import write_report

    print(f"{write_report(config)}: the report, one page that stands alone")


if __name__ == "__main__":
    run_job(ReportConfig, run, check=check, description=__doc__, positional="run")

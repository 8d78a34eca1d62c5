"""Serve the web demo: pick a driver, checkpoints and a prompt, and see the video that follows them.

python demo/app.py --config configs/web.yaml
"""

from lisa_video.cli import run_job
from lisa_video.web.config import WebConfig


def check(config: WebConfig) -> None:
    from lisa_video.web.checks import check_web

    check_web(config)


def run(config: WebConfig) -> None:
    from lisa_video.web.page import serve

    serve(config)


if __name__ == "__main__":
    run_job(WebConfig, run, check=check, description=__doc__)

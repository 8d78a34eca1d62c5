"""Train plain and LISA on the embedded backbone, score both, and render them side by side.

python demo/run_demo.py --config configs/animatediff/demo.yaml
"""

from lisa_video.cli import run_job
from lisa_video.demonstration_config import DemoConfig


def run(config: DemoConfig) -> None:
    from lisa_video.demonstration import run_demo

    run_demo(config)


if __name__ == "__main__":
    run_job(DemoConfig, run, description=__doc__)

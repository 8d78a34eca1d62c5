"""Turn a finished training run into a folder for the hub: weights, model card, samples.

python pipelines/share.py outputs/train_lisa --out shared/my_side_network
"""

from lisa_video.cli import run_job
from lisa_video.sharing.config import ShareConfig


def check(config: ShareConfig) -> None:
    from lisa_video.sharing.job import check_share

    check_share(config)


def run(config: ShareConfig) -> None:
    from lisa_video.sharing.job import share

    folder = share(config)
    print(f"{folder}: ready; read its README.md, then: hf upload USER/NAME {folder}")


if __name__ == "__main__":
    run_job(ShareConfig, run, check=check, description=__doc__, positional="run")

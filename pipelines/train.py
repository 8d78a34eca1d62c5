"""Train a pose side network on a frozen video backbone, by the plain or the LISA objective.

python pipelines/train.py --config configs/animatediff/train_lisa.yaml
accelerate launch pipelines/train.py --config configs/animatediff/sd15_lisa.yaml
"""

from lisa_video.cli import run_job
from lisa_video.training.config import TrainConfig


def check(config: TrainConfig) -> None:
    from lisa_video.training.setup import check_training

    check_training(config)


def run(config: TrainConfig) -> None:
    from accelerate import PartialState

    from lisa_video.training.interruption import Interrupted
    from lisa_video.training.loop import train

    try:
        state = train(config)
    except Interrupted as stop:
        PartialState().print(stop)
        return
    folder = config.output / "side_network"
    PartialState().print(f"side network of step {state.step} written to {folder}")


if __name__ == "__main__":
    run_job(TrainConfig, run, check=check, description=__doc__)

"""Train a pose side network on a frozen video backbone, by the plain or the LISA objective.

python pipelines/train.py --config configs/animatediff/train_lisa.yaml
python pipelines/train.py --config configs/animatediff/sd15_lisa.yaml --estimate --estimate_memory 24GiB
accelerate launch pipelines/train.py --config configs/animatediff/sd15_lisa.yaml
"""

from lisa_video.cli import run_job
from lisa_video.memory.config import TrainJobConfig


def check(config: TrainJobConfig) -> None:
    if config.estimate:
        return
    from lisa_video.training.setup import check_training

    check_training(config.training)


def run(config: TrainJobConfig) -> None:
    if config.estimate:
        from lisa_video.memory.estimate import run_estimate

        run_estimate(config)
        return
    from accelerate import PartialState

    from lisa_video.report_config import ReportConfig
    from lisa_video.training.interruption import Interrupted
    from lisa_video.training.loop import train
    from lisa_video.training.report import write_report

    try:
        state = train(config.training)
    except Interrupted as stop:
        PartialState().print(stop)
        return
    if PartialState().is_main_process:
        print(f"side network of step {state.step} written to {config.output / 'side_network'}")
        print(f"report written to {write_report(ReportConfig(config.output))}")


if __name__ == "__main__":
    run_job(TrainJobConfig, run, check=check, description=__doc__)

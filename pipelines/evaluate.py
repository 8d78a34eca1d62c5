"""Score generated video: FVD and its kin, pose accuracy, motion, likeness to real clips.

python pipelines/evaluate.py --real DIR --fake DIR --poses DIR --metrics fvd,pck --json out.json

With accelerate, on several processes and with the same figures:
accelerate launch --num_processes 2 pipelines/evaluate.py ...
"""

from lisa_video.cli import run_job
from lisa_video.evaluation_config import EvaluateConfig


def check(config: EvaluateConfig) -> None:
    from lisa_video.evaluation.job import check_evaluation

    check_evaluation(config)


def run(config: EvaluateConfig) -> None:
    from lisa_video.evaluation.job import evaluate

    evaluate(config)


if __name__ == "__main__":
    run_job(EvaluateConfig, run, check=check, description=__doc__)

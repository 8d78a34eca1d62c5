"""Score generated clips against the poses asked for: PCK, keypoint distance, missing joints.

python pipelines/evaluate.py --config configs/evaluate.yaml
"""

from lisa_video.cli import run_job
from lisa_video.evaluation_config import EvaluateConfig


def check(config: EvaluateConfig) -> None:
    from lisa_video.evaluation import check_evaluation

    check_evaluation(config)


def run(config: EvaluateConfig) -> None:
    from lisa_video.evaluation import evaluate

    evaluate(config)


if __name__ == "__main__":
    run_job(EvaluateConfig, run, check=check, description=__doc__)

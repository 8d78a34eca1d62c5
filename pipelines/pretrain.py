"""Train the embedded AnimateDiff backbone on rendered figures, from nothing.

python pipelines/pretrain.py --config configs/animatediff/pretrain.yaml
"""

from lisa_video.cli import run_job
from lisa_video.figures.config import PretrainConfig


def run(config: PretrainConfig) -> None:
    from lisa_video.assets import fetch_asset
    from lisa_video.figures.model_card import write_model_card
    from lisa_video.figures.pretraining import pretrain

    folder = pretrain(config, fetch_asset("motions"))
    write_model_card(config, folder)
    print(f"backbone written to {folder}")


if __name__ == "__main__":
    run_job(PretrainConfig, run, description=__doc__)

"""Train the embedded Wan backbone on rendered figures, from nothing.

python pipelines/pretrain_wan.py --config configs/wan/pretrain.yaml
"""

from lisa_video.cli import run_job
from lisa_video.figures.config import PretrainWanConfig


def run(config: PretrainWanConfig) -> None:
    from lisa_video.assets import fetch_asset
    from lisa_video.figures.model_card import write_wan_model_card
    from lisa_video.figures.pretraining_wan import pretrain_wan

    folder = pretrain_wan(config, fetch_asset("motions"))
    write_wan_model_card(config, folder)
    print(f"backbone written to {folder}")


if __name__ == "__main__":
    run_job(PretrainWanConfig, run, description=__doc__)

"""Render the figures set, with true poses and captions, as a dataset to train and probe on.

python pipelines/render_figures.py --config configs/animatediff/figures.yaml
"""

from lisa_video.cli import run_job
from lisa_video.figures.config import FiguresDatasetConfig


def check(config: FiguresDatasetConfig) -> None:
    from lisa_video.figures.export import check_export

    check_export(config)


def run(config: FiguresDatasetConfig) -> None:
    from lisa_video.assets import fetch_asset
    from lisa_video.figures.export import export_figures

    folder = export_figures(config, fetch_asset("motions"))
    print(f"{config.figures.clips} + {config.validation_clips} clips written to {folder}")


if __name__ == "__main__":
    run_job(FiguresDatasetConfig, run, check=check, description=__doc__)

"""Train the keypoint network that scores generated figures, and measure it on held-out renders.

python pipelines/train_detector.py --config configs/animatediff/train_detector.yaml
"""

from lisa_video.cli import run_job
from lisa_video.figures.config import DetectorConfig


def run(config: DetectorConfig) -> None:
    from lisa_video.assets import fetch_asset
    from lisa_video.figures.detector_training import train_detector

    scores = train_detector(config, fetch_asset("motions"))
    for name, value in scores.items():
        print(f"{name} on held-out renders: {value:.4f}")


if __name__ == "__main__":
    run_job(DetectorConfig, run, description=__doc__)

"""Render a driver, its skeleton and what each checkpoint makes of it, side by side.

python demo/render.py --config configs/animatediff/render.yaml
"""

from lisa_video.cli import run_job
from lisa_video.rendering.config import RenderConfig


def check(config: RenderConfig) -> None:
    from lisa_video.rendering.job import check_render

    check_render(config)


def run(config: RenderConfig) -> None:
    from lisa_video.rendering.job import output_files, render

    rendered = render(config)
    print(rendered.driver.record.summary())
    for (label, prompt), score in rendered.scores.items():
        print(f"{label} | {prompt}: PCK@0.1 {score.pck:.3f}")
    print(f"written: {', '.join(str(path) for path in output_files(config))}")


if __name__ == "__main__":
    run_job(RenderConfig, run, check=check, description=__doc__)

"""Make the shipped sample: the poses and the video of a marching figure (procedural motion, so that it may be shipped).

python data/make_sample.py
"""

from pathlib import Path

import numpy as np

from lisa_video.figures.export import true_poses
from lisa_video.figures.motion import procedural_motion
from lisa_video.figures.render import render_clip
from lisa_video.video import write_video

FPS, FRAMES, SIZE = 10.0, 16, (256, 256)


def main() -> None:
    # The first seed whose motion marches and whose camera sees it from the front or side.
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        motion = procedural_motion(rng)
        if motion.action != "marching":
            continue
        clip = render_clip(motion, rng, frames=FRAMES, fps=FPS, size=SIZE)
        if "back view" not in clip.caption:
            break
    sample = Path(__file__).parent / "sample"
    true_poses(clip, FPS).save(sample / "poses" / "marching.npz", overwrite=True)
    write_video(sample / "videos" / "marching.mp4", clip.frames, FPS, crf=23, overwrite=True)
    print(f"{sample}: {clip.caption}")


if __name__ == "__main__":
    main()

"""Whatever draws from a global generator draws the same after a resume."""

import random
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lisa_video.dataset import Clip, ClipDataset
from lisa_video.training.batches import BatchStream
from lisa_video.training.generators import seed_generators, seeded_generators
from tests.training.runs import SIZE, tiny_config


def draw() -> list[float]:
    return [torch.rand(()).item(), np.random.random(), random.random()]


def test_the_block_draws_from_its_seed_and_leaves_the_generators_as_they_were() -> None:
    seed_generators(2**63)
    expected = draw()
    seed_generators(2**63)
    drawn = []
    for seed in (5, 5, 6):
        with seeded_generators(seed):
            drawn.append(draw())
    assert draw() == expected
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


class DrawingClips(ClipDataset):
    """Captions are numbers from the global generators."""

    def clip(self, index: int, epoch: int) -> Clip:
        clip: Any = super().clip(index, epoch)
        object.__setattr__(clip, "caption", str(draw()))
        return clip


def captions(clips: Path, workers: int, steps_done: int, steps: int) -> list[list[str]]:
    config = tiny_config(clips, Path("run"), data__workers=workers)
    dataset = DrawingClips(clips, "train", frames=4, size=(SIZE, SIZE))
    batches = BatchStream(dataset, config).batches(steps_done)
    return [batch.clips.captions for batch in islice(batches, steps)]


def test_clips_draw_by_their_place_in_the_run_whichever_process_reads_them(clips: Path) -> None:
    whole = captions(clips, 0, 0, 5)
    assert len({caption for batch in whole for caption in batch}) == 10
    assert captions(clips, 2, 0, 5) == whole
    assert captions(clips, 3, 2, 3) == whole[2:]

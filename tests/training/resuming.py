"""A run in one piece and the same run in parts, which must end alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lisa_video.training.checkpoint import latest_checkpoint, load_state
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.state import TrainState
from tests.training.runs import tiny_config


def assert_resumes_exactly(
    clips: Path, encoder: ClipEncoder, folder: Path, **changes: Any
) -> TrainState:
    """Interrupt at step 3 of 4 after the checkpoint of step 2; all that is kept is compared bit for
    bit with a run that nothing interrupted, whose end is returned."""
    settings = {"steps": 4, "checkpoint_every": 2, "probe__every": 0} | changes
    whole = tiny_config(clips, folder / "whole", **settings)
    parts = tiny_config(clips, folder / "parts", **settings)

    def interrupt(step: int, _: TrainState) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(parts, encoder=encoder, on_step=interrupt)
    torch.manual_seed(999)
    train(parts, encoder=encoder)
    state = train(whole, encoder=encoder)

    ends = [latest_checkpoint(config.output) for config in (whole, parts)]
    assert ends[0] is not None and ends[1] is not None and ends[0].name == ends[1].name
    files = [path.relative_to(ends[0]) for path in sorted(ends[0].rglob("*.safetensors"))]
    assert len(files) >= 2
    for file in files:
        stored = [load_file(end / file) for end in ends if end is not None]
        torch.testing.assert_close(*stored, rtol=0, atol=0)
    one, other = (load_state(end).optimizer for end in ends if end is not None)
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    return state

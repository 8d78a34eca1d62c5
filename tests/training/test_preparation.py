"""What the networks read of a batch."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from lisa_video.training.batches import BatchStream
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.losses import NoisedLatents
from lisa_video.training.preparation import prepare_batch
from lisa_video.training.sources import open_dataset
from lisa_video.weighting import min_snr_weight
from tests.training.runs import tiny_config


def noised(clips: Path, encoder: ClipEncoder, **changes: Any) -> NoisedLatents:
    config = tiny_config(clips, Path("run"), **changes)
    stream = BatchStream(open_dataset(config, encoder.backbone, "train"), config)
    (batch,) = islice(stream.batches(0), 1)
    return prepare_batch(config, encoder, batch)[0]


def test_weights_are_those_of_the_timesteps(clips: Path, encoder: ClipEncoder) -> None:
    plain = noised(clips, encoder)
    assert plain.main_weights is None and plain.alignment_weights is None
    weighted = noised(
        clips,
        encoder,
        loss__weighting="min_snr",
        loss__gamma=2.0,
        alignment__weighting="score",
    )
    assert torch.equal(weighted.noisy, plain.noisy)
    a, s = (each.flatten() for each in encoder.backbone.signal_and_noise(plain.timesteps))
    assert encoder.backbone.prediction_type == "v_prediction"
    assert weighted.main_weights is not None and weighted.alignment_weights is not None
    assert torch.equal(weighted.main_weights, min_snr_weight("v_prediction", a, s, 2.0))
    torch.testing.assert_close(weighted.alignment_weights, a**2)


@pytest.mark.parametrize("weighting", ["min_snr", "score"])
def test_both_losses_may_be_weighted_apart(
    clips: Path, encoder: ClipEncoder, weighting: str
) -> None:
    alone = noised(clips, encoder, alignment__weighting=weighting)
    assert alone.main_weights is None and alone.alignment_weights is not None

"""The network's plan: sizes, padding, and which clips it takes."""

import pytest
import torch

from lisa_video.metrics.i3d import I3D, _pad_same, minimum_frames


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [
        (224, 7, 2, 2, 3),  # TensorFlow: total (112 - 1) * 2 + 7 - 224 = 5, the smaller half first
        (112, 3, 2, 0, 1),
        (5, 3, 2, 1, 1),
        (3, 2, 2, 0, 1),
        (4, 2, 2, 0, 0),
        (9, 3, 1, 1, 1),
    ],
)
def test_same_padding_is_tensorflows(
    size: int, kernel: int, stride: int, before: int, after: int
) -> None:
    ones = torch.ones(1, 1, size, 1, 1)
    padded = _pad_same(ones, (kernel, 1, 1), (stride, 1, 1))[0, 0, :, 0, 0]
    assert padded.tolist() == [0] * before + [1] * size + [0] * after


def test_frames_that_each_pooling_needs() -> None:
    """T = 8 frames leave one for a pool over two, which gave NaN in a published script."""
    assert (minimum_frames(2), minimum_frames(1)) == (9, 1)
    with pytest.raises(AssertionError):
        I3D()(torch.zeros(1, 3, 8, 224, 224))


def test_it_has_the_published_number_of_weights() -> None:
    # Two of these are the 25 M of the two-stream network.
    assert sum(weight.numel() for weight in I3D().parameters()) == 12_689_984

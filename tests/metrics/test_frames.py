"""A network that sees single frames, as a file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lisa_video.errors import UserError
from lisa_video.metrics.frames import FrameExtractor


class PictureNetwork(nn.Module):
    """The interface of the Inception that NVIDIA publishes: uint8 pictures, features on demand."""

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        means = img.float().mean([2, 3])
        return means if return_features else means.softmax(1)


def picture_network(folder: Path) -> Path:
    path = folder / "inception-2015.pt"
    torch.jit.script(PictureNetwork()).save(str(path))
    return path


def test_each_frame_has_its_features(tmp_path: Path) -> None:
    extractor = FrameExtractor(picture_network(tmp_path))
    clips = np.random.RandomState(0).randint(0, 256, (2, 3, 8, 10, 3)).astype(np.uint8)
    found = extractor(clips)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, clips.mean((2, 3)).reshape(6, 3), rtol=1e-5)
    assert extractor.name == "inception-2015"


def test_what_is_not_such_a_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such FID network"):
        FrameExtractor(tmp_path / "absent.pt")
    clips = np.zeros((1, 2, 8, 8, 3), np.uint8)
    for module, message in (
        (nn.Linear(3, 3), r"cannot take uint8 \(B, 3, H, W\)"),
        (nn.Identity(), r"gives no features \(B, D\)"),
    ):
        torch.jit.script(module).save(str(tmp_path / "network.pt"))
        with pytest.raises(UserError, match=message):
            FrameExtractor(tmp_path / "network.pt")(clips)

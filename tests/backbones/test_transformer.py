"""What the adapters of video transformers share, against plain diffusers: Wan, and CogVideoX with both
kinds of positions."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from lisa_video.backbones.transformer import TransformerBackbone
from lisa_video.backbones.wan import WanBackbone
from lisa_video.injection import Injection, SideResiduals
from tests.tiny import awakened
from tests.tiny_cogvideox import cogvideox_inputs, cogvideox_pipeline, tiny_cogvideox
from tests.tiny_wan import BLOCKS, VAE_FACTOR, tiny_wan, wan_inputs

MAKERS: dict[str, Callable[[], TransformerBackbone]] = {
    "wan": tiny_wan,
    "cogvideox-added": tiny_cogvideox,
    "cogvideox-rotary": partial(tiny_cogvideox, use_rotary_positional_embeddings=True),
}
INJECTIONS: list[Injection] = ["all", {"stride": 2}, {"even": 2}, [3], ["block_5"]]
SIZES = [(1, 6, 8), (9, 4, 10), (17, 6, 8)]


@pytest.fixture(scope="module", params=MAKERS)
def backbone(request: pytest.FixtureRequest) -> TransformerBackbone:
    return MAKERS[request.param]()


def inputs_of(backbone: TransformerBackbone, *size: int, batch: int = 2) -> tuple[Tensor, ...]:
    make = wan_inputs if isinstance(backbone, WanBackbone) else cogvideox_inputs
    return make(*size or (9, 6, 8), batch=batch)


def side_residuals(
    backbone: TransformerBackbone, inputs: tuple[Tensor, ...], injection: Injection = "all"
) -> SideResiduals:
    side = awakened(backbone.new_side_network(injection=injection))
    return backbone.side_output(side, *inputs).residuals


def diffusers_forward(
    backbone: TransformerBackbone, inputs: tuple[Tensor, ...], residuals: SideResiduals | None
) -> Tensor:
    """The transformer called by hand, residuals added to the tokens by hooks."""

    def add(value: Tensor) -> Callable[..., object]:
        def hook(_block: object, _args: object, output: Tensor | tuple[Tensor, Tensor]) -> object:
            if isinstance(output, tuple):
                return output[0] + value, output[1]
            return output + value

        return hook

    hooks = [
        backbone.blocks[int(name.removeprefix("block_"))].register_forward_hook(add(value))
        for name, value in (residuals.points if residuals else {}).items()
    ]
    noisy, timesteps, text = inputs[:3]
    transformer, rotary = backbone.main_network, None
    if isinstance(backbone, WanBackbone):
        prediction = transformer(noisy, timesteps, text).sample
    else:
        if transformer.config.use_rotary_positional_embeddings:
            rotary = cogvideox_pipeline(backbone)._prepare_rotary_positional_embeddings(
                noisy.shape[3] * VAE_FACTOR,
                noisy.shape[4] * VAE_FACTOR,
                noisy.shape[2],
                noisy.device,
            )
        prediction = transformer(noisy.transpose(1, 2), text, timesteps, image_rotary_emb=rotary)
        prediction = prediction.sample.transpose(1, 2)
    for hook in hooks:
        hook.remove()
    return prediction


@pytest.mark.parametrize("injection", INJECTIONS, ids=str)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_shared_blocks_equal_two_diffusers_forwards(
    make: Callable[[], TransformerBackbone], injection: Injection, checkpointing: bool
) -> None:
    backbone = make()
    if checkpointing:
        backbone.enable_gradient_checkpointing()
    for size in SIZES:
        inputs = inputs_of(backbone, *size)
        residuals = side_residuals(backbone, inputs, injection)
        controlled, prior = backbone.predict_with_prior(*inputs[:3], residuals)
        assert torch.equal(controlled, diffusers_forward(backbone, inputs, residuals))
        assert torch.equal(prior, diffusers_forward(backbone, inputs, None))
        assert (controlled - prior).abs().max() > 1e-3
        assert torch.equal(backbone.predict(*inputs[:3], residuals), controlled)
        assert torch.equal(backbone.predict(*inputs[:3]), prior)


@pytest.mark.parametrize("clips", [[0], [2, 0], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("injection", [{"even": 2}, [0], [5]], ids=str)
def test_prior_of_some_clips_equals_their_own_forward(
    backbone: TransformerBackbone, clips: list[int], injection: Injection
) -> None:
    inputs = inputs_of(backbone, batch=3)
    residuals = side_residuals(backbone, inputs, injection)
    first = int(next(iter(residuals.points)).removeprefix("block_"))
    rows: list[tuple[int, int]] = []
    hooks = [
        block.register_forward_hook(
            lambda _block, _args, output, index=index: rows.append(
                (index, len(output[0]) if isinstance(output, tuple) else len(output))
            )
        )
        for index, block in enumerate(backbone.blocks)
    ]
    chosen = torch.tensor(clips)
    controlled, prior = backbone.predict_with_prior(*inputs[:3], residuals, chosen)
    for hook in hooks:
        hook.remove()
    # What is shared sees all clips once, the rest of the prior only those asked for.
    later = range(first + 1, BLOCKS)
    shared = [(index, 3) for index in range(first + 1)]
    assert rows == shared + [(i, len(clips)) for i in later] + [(i, 3) for i in later]
    assert not prior.requires_grad
    alone = diffusers_forward(backbone, tuple(each[chosen] for each in inputs), None)
    torch.testing.assert_close(prior, alone, rtol=1e-5, atol=1e-6)
    assert torch.equal(controlled, diffusers_forward(backbone, inputs, residuals))


@pytest.mark.parametrize("injection", [{"even": 3}, [2, 3, 5]], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_gradient_of_residuals_equals_the_full_forwards(
    make: Callable[[], TransformerBackbone], injection: Injection, checkpointing: bool
) -> None:
    backbone = make()
    if checkpointing:
        backbone.enable_gradient_checkpointing()
    inputs = inputs_of(backbone)
    points = {
        name: value.detach().requires_grad_()
        for name, value in side_residuals(backbone, inputs, injection).points.items()
    }
    residuals, leaves = SideResiduals(points), list(points.values())
    shared, prior = backbone.predict_with_prior(*inputs[:3], residuals)
    got = torch.autograd.grad(shared.square().sum(), leaves)
    full = diffusers_forward(make(), inputs, residuals)
    expected = torch.autograd.grad(full.square().sum(), leaves)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert one.abs().max() > 0
    assert not prior.requires_grad


def test_blocks_up_to_the_first_injection_run_once(backbone: TransformerBackbone) -> None:
    inputs = inputs_of(backbone)
    residuals = side_residuals(backbone, inputs, {"even": 2})
    runs = [0] * BLOCKS
    hooks = [
        block.register_forward_hook(
            lambda *_, index=index: runs.__setitem__(index, runs[index] + 1)
        )
        for index, block in enumerate(backbone.blocks)
    ]
    backbone.predict_with_prior(*inputs[:3], residuals)
    for hook in hooks:
        hook.remove()
    assert list(residuals.points) == ["block_2", "block_5"]
    assert runs == [1, 1, 1, 2, 2, 2]


def test_blocks_are_put_back_when_a_forward_fails(backbone: TransformerBackbone) -> None:
    inputs = inputs_of(backbone)
    residuals = side_residuals(backbone, inputs)
    blocks = list(backbone.blocks)
    names = set(backbone.main_network.state_dict())
    expected = backbone.predict(*inputs[:3])
    broken = SideResiduals({name: value[:, :5] for name, value in residuals.points.items()})
    narrow = inputs[2][..., :3]
    for call in (
        lambda: backbone.predict(*inputs[:3], broken),
        lambda: backbone.predict_with_prior(*inputs[:3], broken),
        lambda: backbone.predict_with_prior(*inputs[:2], narrow, residuals),
        lambda: backbone.block_arguments(*inputs[:2], narrow),
    ):
        with pytest.raises(RuntimeError):
            call()
        assert all(a is b for a, b in zip(backbone.blocks, blocks, strict=True))
        assert set(backbone.main_network.state_dict()) == names
    assert torch.equal(backbone.predict(*inputs[:3]), expected)


@pytest.mark.parametrize("pose_init", ["zero", "normal"])
@pytest.mark.parametrize("hidden_size", [None, 16])
def test_first_prediction_is_the_backbones_bit_for_bit(
    backbone: TransformerBackbone, pose_init: str, hidden_size: int | None
) -> None:
    side = backbone.new_side_network(pose_init=pose_init, hidden_size=hidden_size)
    inputs = inputs_of(backbone)
    residuals = backbone.side_output(side, *inputs).residuals
    alone = diffusers_forward(backbone, inputs, None)
    controlled, prior = backbone.predict_with_prior(*inputs[:3], residuals)
    assert torch.equal(backbone.predict(*inputs[:3], residuals), alone)
    assert torch.equal(controlled, alone)
    assert torch.equal(prior, alone)

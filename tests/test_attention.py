import copy
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lisa_video.attention import (
    KERNELS,
    AttentionKernel,
    _Instead,
    usable_kernels,
    use_attention,
)
from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from tests.tiny import awakened, model_inputs, tiny_backbone
from tests.tiny_cogvideox import cogvideox_inputs, tiny_cogvideox
from tests.tiny_wan import tiny_wan, wan_inputs

FAMILIES: dict[str, tuple[Callable[[], VideoBackbone], Callable[[], tuple[Tensor, ...]]]] = {
    "animatediff": (tiny_backbone, model_inputs),
    "wan": (tiny_wan, wan_inputs),
    "cogvideox": (tiny_cogvideox, cogvideox_inputs),
}


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> tuple[VideoBackbone, tuple[Tensor, ...]]:
    backbone, inputs = FAMILIES[request.param]
    return backbone(), inputs()


class Counted:
    """A kernel that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def attend(self, *args: Tensor, **kwargs: object) -> Tensor:
        self.calls += 1
        return F.scaled_dot_product_attention(*args, **kwargs)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setitem(KERNELS, "math", AttentionKernel(lambda: _Instead(counted.attend)))
    return counted


def controlled(
    backbone: VideoBackbone, side: torch.nn.Module, inputs: tuple[Tensor, ...]
) -> Tensor:
    noisy, timesteps, text, poses = inputs
    residuals = backbone.side_output(side, noisy, timesteps, text, poses).residuals
    return backbone.predict(noisy, timesteps, text, residuals)


@pytest.mark.parametrize("name", ["flash", "math"])
def test_kernels_agree_in_prediction_and_gradient(
    family: tuple[VideoBackbone, tuple[Tensor, ...]], name: str
) -> None:
    backbone, inputs = family
    side = awakened(backbone.new_side_network())
    results = []
    for kernel in ("sdpa", name):
        chosen = use_attention(kernel, [backbone.main_network, side], torch.float32, training=True)
        assert chosen == f"attention: {kernel}"
        side.zero_grad()
        prediction = controlled(backbone, side, inputs)
        prediction.square().mean().backward()
        results.append((prediction.detach(), [p.grad.clone() for p in side.parameters()]))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    for one, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_every_attention_runs_by_the_kernel_also_when_recomputed(
    family: tuple[VideoBackbone, tuple[Tensor, ...]], counted: Counted
) -> None:
    backbone, inputs = family
    side = awakened(backbone.new_side_network())
    networks = [backbone.main_network, side]
    use_attention("math", networks, torch.float32, training=True)
    counted.calls = 0
    controlled(backbone, side, inputs)
    assert counted.calls > 0

    forward = counted.calls
    side.enable_gradient_checkpointing()
    side.train()
    controlled(backbone, side, inputs).square().mean().backward()
    assert counted.calls > 2 * forward  # once more forward, and some again in the backward pass

    counted.calls = 0
    use_attention("sdpa", networks, torch.float32, training=True)
    controlled(backbone, side, inputs)
    assert counted.calls == 0


def test_copies_keep_the_kernel_and_processors_their_class(counted: Counted) -> None:
    unet = tiny_backbone().main_network
    before = {name: type(processor) for name, processor in unet.attn_processors.items()}
    use_attention("math", [unet], torch.float32, training=False)
    assert all(
        isinstance(processor, before[name])
        for name, processor in copy.deepcopy(unet).attn_processors.items()
    )
    noisy, timesteps, text, _ = model_inputs()
    counted.calls = 0
    backbone = tiny_backbone()
    backbone.main_network = copy.deepcopy(unet)
    backbone.predict(noisy, timesteps, text)
    assert counted.calls > 0


def test_auto_on_a_cpu_is_torchs_own_and_changes_no_processor() -> None:
    unet = tiny_backbone().main_network
    before = dict(unet.attn_processors)
    assert use_attention("auto", [unet], torch.float32, training=True) == "attention: sdpa"
    assert {name: type(each) for name, each in before.items()} == {
        name: type(each) for name, each in unet.attn_processors.items()
    }


def test_auto_says_what_it_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lisa_video.attention._AUTO", {"cpu": ("xformers", "sdpa")})
    chosen = use_attention("auto", [tiny_wan().main_network], torch.float32, training=True)
    assert chosen.startswith("attention: sdpa; not xformers: ")


def test_what_cannot_run_is_refused() -> None:
    networks = [tiny_wan().main_network]
    with pytest.raises(UserError, match=r"attention=sage: .*; take auto or sdpa"):
        use_attention("sage", networks, torch.float32, training=True)
    with pytest.raises(UserError, match="attention=xformers: "):
        use_attention("xformers", networks, torch.float32, training=False)


def test_a_kernel_that_fails_on_these_heads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Tensor, **kwargs: object) -> Tensor:
        raise RuntimeError("No available kernel.\nAborting execution.")

    monkeypatch.setitem(KERNELS, "flash", AttentionKernel(lambda: _Instead(fails)))
    with pytest.raises(
        UserError, match=r"heads of width 8 on cpu \(No available kernel\.\); take auto"
    ):
        use_attention("flash", [tiny_wan().main_network], torch.bfloat16, training=True)
    usable = usable_kernels([tiny_wan().main_network], torch.float32, training=True)
    assert "flash" not in usable and "math" in usable


def test_without_gradient_is_for_generation_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KERNELS, "sage", AttentionKernel(nullcontext, gradient=False))
    networks = [tiny_wan().main_network]
    assert use_attention("sage", networks, torch.float32, training=False) == "attention: sage"
    with pytest.raises(UserError, match="it has no gradient, so it serves generation only"):
        use_attention("sage", networks, torch.float32, training=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["flash", "xformers", "sage", "math"])
def test_kernels_of_a_gpu_agree(name: str, dtype: torch.dtype) -> None:
    device = torch.device("cuda")
    network = tiny_wan().main_network.to(device)
    if name not in usable_kernels([network], dtype, training=name != "sage"):
        pytest.skip(f"{name} does not run here")
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 4, 96, 64, generator=generator).to(device, dtype) for _ in range(3)
    )
    exact = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
    with KERNELS[name].context():
        attended = F.scaled_dot_product_attention(query, key, value)
    # SageAttention multiplies in 8 bits.
    tolerance = 5e-2 if name == "sage" else 1e-2
    torch.testing.assert_close(attended.float(), exact, atol=tolerance, rtol=0)

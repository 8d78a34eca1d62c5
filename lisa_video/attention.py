"""Attention kernels for every diffusers network alike: UNet or transformer, backbone or side network.

All kernels compute softmax(q k^T * scale) v (Vaswani et al., arXiv:1706.03762) and differ in time,
memory and rounding. All three backbones reach torch's scaled dot product attention in the end, so a
kernel is put in its place while an attention module runs, and no model code changes.

Shapes: B batch, H heads, N tokens, D width of a head.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lisa_video.attention_config import AttentionChoice
from lisa_video.errors import UserError
from lisa_video.loading import first_line


@dataclass(frozen=True)
class AttentionKernel:
    """One way to compute attention."""

    context: Callable[[], AbstractContextManager[Any]]
    """While it is entered, torch's scaled dot product attention is this kernel."""
    package: str | None = None
    """Module that it comes with, where that is not torch."""
    cuda_only: bool = False
    gradient: bool = True
    """Whether a network can be trained with it."""


class _Instead(TorchFunctionMode):
    """Calls a function in the place of torch's scaled dot product attention."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attend = attend

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            return self.attend(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _xformers(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As torch's: (B, H, N, D) in and out; xformers has tokens before heads."""
    from xformers.ops import LowerTriangularMask, memory_efficient_attention

    assert not enable_gqa and not (is_causal and attn_mask is not None)
    attended: Tensor = memory_efficient_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_bias=LowerTriangularMask() if is_causal else attn_mask,
        p=dropout_p,
        scale=scale,
    )
    return attended.transpose(1, 2)


def _sage(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As torch's: (B, H, N, D) in and out."""
    from sageattention import sageattn

    assert attn_mask is None and not dropout_p and not enable_gqa
    attended: Tensor = sageattn(
        query, key, value, tensor_layout="HND", is_causal=is_causal, sm_scale=scale
    )
    return attended


KERNELS: dict[AttentionChoice, AttentionKernel] = {
    "sdpa": AttentionKernel(nullcontext),
    "flash": AttentionKernel(lambda: sdpa_kernel(SDPBackend.FLASH_ATTENTION)),
    "xformers": AttentionKernel(lambda: _Instead(_xformers), package="xformers", cuda_only=True),
    "sage": AttentionKernel(
        lambda: _Instead(_sage), package="sageattention", cuda_only=True, gradient=False
    ),
    "math": AttentionKernel(lambda: sdpa_kernel(SDPBackend.MATH)),
}
"""By name: torch's own choice, its flash kernel, xformers, SageAttention, and the plain formula."""

_AUTO: dict[str, tuple[AttentionChoice, ...]] = {"cuda": ("flash", "xformers", "sdpa")}


def use_attention(
    choice: AttentionChoice, networks: Sequence[nn.Module], dtype: torch.dtype, *, training: bool
) -> str:
    """Let all attention of `networks`, which are on one device, run by one kernel.

    Args:
        choice: a kernel, or "auto": on CUDA the first of flash, xformers and sdpa that runs.
        networks: diffusers networks; they can be given again, for another kernel.
        dtype: in which they compute, float32 or that of autocast.
        training: whether gradients are needed.

    Returns:
        One line for the user: the kernel, and why it is not an earlier one.

    Raises:
        UserError: the kernel that was asked for cannot run here; the message says why.
    """
    widths, device = _head_widths(networks), _device(networks)
    passed_over: list[str] = []
    for name in _AUTO.get(device.type, ("sdpa",)) if choice == "auto" else (choice,):
        problem = _problem(name, widths, device, dtype, training)
        if problem is None:
            for module in _attention_modules(networks):
                module.set_processor(_with_kernel(module.processor, name))
            return f"attention: {name}" + "".join(f"; {reason}" for reason in passed_over)
        passed_over.append(f"not {name}: {problem}")
    raise UserError(f"attention={choice}: {problem}; take auto or sdpa")


def usable_kernels(
    networks: Sequence[nn.Module], dtype: torch.dtype, *, training: bool
) -> list[AttentionChoice]:
    """The kernels that `use_attention` would take."""
    widths, device = _head_widths(networks), _device(networks)
    return [name for name in KERNELS if _problem(name, widths, device, dtype, training) is None]


def _problem(
    name: AttentionChoice,
    widths: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    training: bool,
) -> str | None:
    """Why a kernel cannot run, in a few words; found out by running it."""
    kernel = KERNELS[name]
    if kernel.package is not None and find_spec(kernel.package) is None:
        return f"{kernel.package} is not installed"
    if kernel.cuda_only and device.type != "cuda":
        return f"it needs a CUDA device, and this run is on {device.type}"
    if training and not kernel.gradient:
        return "it has no gradient, so it serves generation only"
    if device.type == "meta":
        return None
    try:
        for width in widths:
            tokens = torch.zeros(
                (1, 1, 8, width), device=device, dtype=dtype, requires_grad=training
            )
            with kernel.context():
                attended = F.scaled_dot_product_attention(tokens, tokens, tokens)
            if training:
                attended.sum().backward()
    except (RuntimeError, ValueError, NotImplementedError, ImportError) as error:
        what = f"{str(dtype).removeprefix('torch.')} heads of width {width} on {device.type}"
        return f"it does not run for {what} ({first_line(error)})"
    return None


def _attention_modules(networks: Sequence[nn.Module]) -> Iterator[Any]:
    """Every module of diffusers that attends by way of an exchangeable processor."""
    for network in networks:
        for module in network.modules():
            if hasattr(module, "processor") and hasattr(module, "set_processor"):
                yield module


def _head_widths(networks: Sequence[nn.Module]) -> list[int]:
    modules = _attention_modules(networks)
    return sorted({int(each.to_q.out_features // each.heads) for each in modules})


def _device(networks: Sequence[nn.Module]) -> torch.device:
    return next(networks[0].parameters()).device


def _with_kernel(processor: Any, name: AttentionChoice) -> Any:
    """A processor like `processor`, of a subclass that enters the kernel's context.

    A subclass, because diffusers looks at a processor's class and at the signature of its call.
    """
    plain: type = getattr(processor, "without_kernel", type(processor))
    changed = copy.copy(processor)
    changed.__class__ = plain if name == "sdpa" else _subclass(plain, name)
    return changed


@functools.cache
def _subclass(plain: Any, name: AttentionChoice) -> type:
    @functools.wraps(plain.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with KERNELS[name].context():
            return plain.__call__(self, *args, **kwargs)

    return type(plain.__name__, (plain,), {"__call__": call, "without_kernel": plain})

"""A ControlNet of Stable Diffusion as the start of a motion UNet's side network, and the way back.

A ControlNet is such a side network without motion modules: its weights match by name, its
conditioning embedding is the pose encoder, its zero convolutions are the zero projections. These
have been trained, so the first prediction is no longer that of the backbone: it is steered as the
ControlNet steers each frame alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from diffusers import ControlNetModel
from torch import nn

from lisa_video.errors import UserError
from lisa_video.loading import load_pretrained
from lisa_video.side_networks.base import TakenOver
from lisa_video.side_networks.pose_encoder import pose_widths

if TYPE_CHECKING:
    from lisa_video.side_networks.unet import UNetSideNetwork

PARTS = {
    "controlnet_cond_embedding": "pose_encoder",
    "controlnet_down_blocks": "projections.down_",
    "controlnet_mid_block": "projections.mid",
}
"""ControlNet's names of what a side network names otherwise."""
BLOCK_TYPES = {
    "CrossAttnDownBlockMotion": "CrossAttnDownBlock2D",
    "DownBlockMotion": "DownBlock2D",
}
"""Blocks of a motion UNet without their motion modules."""
EXPECTED = {
    "conditioning_channels": 3,
    "controlnet_conditioning_channel_order": "rgb",
    "global_pool_conditions": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
"""Settings of a ControlNet that a side network has no other way for."""


def load_controlnet(
    path: str | PathLike[str], unet_config: Mapping[str, Any], pose_halvings: int
) -> ControlNetModel:
    """A ControlNet made for the UNet that a motion UNet with this configuration was made of.

    `path` is a folder or hub name. Raises UserError where it holds no ControlNet, or one for
    another UNet, VAE or kind of condition.
    """
    controlnet = load_pretrained(ControlNetModel, path)
    config = controlnet.config
    theirs, ours = _description(config), _description(unet_config)
    for name, value in theirs.items():
        if value != ours[name]:
            raise UserError(
                f"side_network.controlnet={path}: has {name} {value}, and the backbone {ours[name]}"
            )
    for name, expected in EXPECTED.items():
        if config[name] != expected:
            raise UserError(
                f"side_network.controlnet={path}: has {name} {config[name]}, only {expected} fits"
            )
    halvings = len(config.conditioning_embedding_out_channels) - 1
    if halvings != pose_halvings:
        raise UserError(
            f"side_network.controlnet={path}: halves conditions {halvings} times, and the VAE of "
            f"the backbone {pose_halvings} times"
        )
    return controlnet


def take_over(
    side: nn.Module, controlnet: ControlNetModel, source: str | PathLike[str]
) -> TakenOver:
    """Copy all weights of `controlnet` that `side` has a place for, and tell which.

    Raises UserError where it has others than zero projections, or lacks others than those of
    motion modules.
    """
    theirs = {_own_name(name): value for name, value in controlnet.state_dict().items()}
    ours = dict(side.named_parameters())
    taken = {
        name: value
        for name, value in theirs.items()
        if name in ours and value.shape == ours[name].shape
    }
    left_out = [name for name in theirs if name not in taken]
    kept = [name for name in ours if name not in taken]
    odd = [name for name in left_out if not name.startswith("projections.")]
    odd += [name for name in kept if ".motion_modules." not in name]
    if odd:
        raise UserError(
            f"side_network.controlnet={source}: {odd[0]} is not the same in the backbone's UNet"
        )
    side.load_state_dict(taken, strict=False)
    return TakenOver(
        source=fspath(source),
        taken=_sizes({name: ours[name] for name in taken}),
        kept={"motion modules": sum(ours[name].numel() for name in kept)},
        left_out=tuple(dict.fromkeys(name.split(".")[1] for name in left_out)),
    )


def exported(side: UNetSideNetwork) -> ControlNetModel:
    """A side network without motion modules as the ControlNet that it is, on the same device.

    For drawn conditions (B*F, 3, H, W) in [0, 1] it gives the same residuals, frame by frame, and 0
    where the side network has no zero projection. Raises UserError where there are motion modules,
    or other blocks than a ControlNet has.
    """
    if side.config.motion_modules:
        raise UserError(
            "this side network has motion modules, and a ControlNet has no place for them; train "
            "one with side_network.motion_modules=false"
        )
    unet = side.config.unet_config
    unknown = sorted(set(unet["down_block_types"]) - BLOCK_TYPES.keys())
    if unknown:
        raise UserError(f"a ControlNet has no block like the backbone's {unknown[0]}")
    controlnet = ControlNetModel(
        in_channels=unet["in_channels"],
        down_block_types=tuple(BLOCK_TYPES[kind] for kind in unet["down_block_types"]),
        block_out_channels=tuple(unet["block_out_channels"]),
        layers_per_block=unet["layers_per_block"],
        norm_num_groups=unet["norm_num_groups"],
        cross_attention_dim=unet["cross_attention_dim"],
        transformer_layers_per_block=unet["transformer_layers_per_block"],
        use_linear_projection=unet["use_linear_projection"],
        # Named attention_head_dim in Stable Diffusion's own models, it is a number of heads.
        attention_head_dim=unet["num_attention_heads"],
        conditioning_embedding_out_channels=tuple(
            side.config.pose_channels or pose_widths(side.config.pose_halvings)
        ),
    )
    names = {_own_name(name): name for name in controlnet.state_dict()}
    ours = side.state_dict()
    lacking = [name for name in names if name not in ours and not name.startswith("projections.")]
    odd = [*lacking, *(name for name in ours if name not in names)]
    if odd:
        raise UserError(f"a ControlNet has no place for, or wants more than, {odd[0]}")
    controlnet.load_state_dict({names[name]: value for name, value in ours.items()}, strict=False)
    return controlnet.to(side.device).eval()


def _own_name(name: str) -> str:
    """ "controlnet_down_blocks.3.weight" -> "projections.down_3.weight", and so on."""
    part, _, rest = name.partition(".")
    own = PARTS.get(part, part)
    return own + rest if own.endswith("_") else f"{own}.{rest}"


def _sizes(weights: Mapping[str, nn.Parameter]) -> dict[str, int]:
    """Weights in each part of a network."""
    sizes: Counter[str] = Counter()
    for name, value in weights.items():
        sizes[name.partition(".")[0]] += value.numel()
    return dict(sizes)


def _description(config: Mapping[str, Any]) -> dict[str, object]:
    """What a ControlNet and a motion UNet of the same Stable Diffusion have in common."""
    levels = len(config["block_out_channels"])
    heads = config["num_attention_heads"] or config["attention_head_dim"]
    return {
        "widths": tuple(config["block_out_channels"]),
        "latent channels": config["in_channels"],
        "text width": _each(config["cross_attention_dim"], levels),
        "attention heads": _each(heads, levels),
        "layers per block": _each(config["layers_per_block"], levels),
        "groups in normalisation": config["norm_num_groups"],
    }


def _each(value: int | Iterable[int], levels: int) -> tuple[int, ...]:
    """One value for each level."""
    return (value,) * levels if isinstance(value, int) else tuple(value)

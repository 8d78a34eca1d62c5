"""The side network of a video transformer: trainable copies of some of its blocks that read poses.

Shapes: B batch, F video frames, T latent frames, H W pixels, N = T h w tokens, C width of the
backbone, c width of the side network.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn
from typing_extensions import Self

from lisa_video.condition_config import ConditionKind
from lisa_video.errors import UserError
from lisa_video.injection import Injection, SideResiduals, block_points, chosen_points
from lisa_video.side_networks.base import PoseInit, SideNetwork, SideOutput, seeded, zeroed
from lisa_video.side_networks.pose_encoder import VideoPoseEncoder, pose_widths

if TYPE_CHECKING:
    from lisa_video.backbones.transformer import TransformerBackbone

BlockArguments = Mapping[str, Any]
"""What a transformer calls its first block with, by the names of the block's `forward`."""


@dataclass(frozen=True)
class BlockLayout:
    """How a diffusers transformer is made of blocks."""

    transformer: type[ModelMixin]
    """Its class; `num_attention_heads`, `attention_head_dim` and `num_layers` configure it."""
    blocks: str
    """Attribute that holds the blocks."""
    states: tuple[str, ...]
    """Arguments that a block returns anew, in this order; the first are the video's tokens."""
    wide: tuple[str, ...]
    """Arguments whose last axis has the width of the transformer."""
    ffn_width: str | None = None
    """Setting of the feed-forward width, where that is not a fixed multiple of the width."""

    def width(self, config: Mapping[str, Any]) -> int:
        """C."""
        return int(config["num_attention_heads"] * config["attention_head_dim"])

    def arguments(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> BlockArguments:
        """A call of a block by argument names, defaults filled in, in the order of `forward`."""
        call = inspect.signature(type(block).forward).bind(block, *args, **kwargs)
        call.apply_defaults()
        return {name: value for name, value in call.arguments.items() if name != "self"}

    def returned(self, output: Any) -> dict[str, Tensor]:
        """What a block gave back, by argument names."""
        values = output if isinstance(output, tuple) else (output,)
        return dict(zip(self.states, values, strict=True))


class TransformerSideNetwork(SideNetwork):
    """Copies of some blocks of a video transformer, a causal pose encoder, and zero projections.

    Its tokens start as the backbone's own, to which encoded poses are added; they run through the
    copies alone, each of which is followed by a zero projection back to the backbone's width. The
    arguments that condition a block (text, time, positions) are those that the backbone made.

    Made by `from_backbone`; subclasses give the `layout`. The configuration below is what
    `save_pretrained` keeps, and enough to load the network without any backbone at hand.

    - `transformer_config`: configuration of the backbone's transformer;
    - `vae_halvings`, `time_halvings`: stride-2 steps of its VAE in space and time;
    - `patch_size`: latent cells along each side of a token's patch;
    - `injection`: the injection points; the blocks before them are the ones copied;
    - `taps`: those of them whose features `forward` hands out;
    - `hidden_size`: c; None: that of the backbone. Whole heads are left out, evenly spaced, with
      their channels, and as large a share of the feed-forward layers where those are set apart;
    - `pose_init`: how the pose encoder starts;
    - `backbone_fingerprint`: that of the backbone whose weights were copied;
    - `condition`: what it is steered by.

    Raises UserError where a name in `injection` or `taps` does not exist, or for `hidden_size`.
    """

    layout: ClassVar[BlockLayout]

    @register_to_config
    def __init__(
        self,
        transformer_config: dict[str, Any],
        vae_halvings: int,
        time_halvings: int,
        patch_size: int,
        injection: list[str],
        taps: list[str],
        hidden_size: int | None = None,
        pose_init: PoseInit = "zero",
        backbone_fingerprint: str = "",
        condition: ConditionKind = "pose",
    ) -> None:
        super().__init__()
        width = self.layout.width(transformer_config)
        own = hidden_size or width
        points = block_points(transformer_config["num_layers"], width, patch_size)
        self.injection_points = chosen_points(injection, points)
        taken = chosen_points(taps, self.injection_points, "taps") if taps else {}
        self.tap_points = {name: replace(point, channels=own) for name, point in taken.items()}
        # The backbone's own class builds the blocks, so every weight matches by name.
        narrow = narrowed_config(self.layout, transformer_config, own)
        built = self.layout.transformer.from_config(narrow | {"num_layers": len(injection)})
        self.blocks = nn.ModuleDict(
            dict(zip(self.injection_points, getattr(built, self.layout.blocks), strict=True))
        )
        self.channels = kept_channels(width, own, transformer_config["attention_head_dim"])
        halvings = vae_halvings + patch_size.bit_length() - 1
        self.pose_encoder = VideoPoseEncoder(own, pose_widths(halvings), time_halvings, pose_init)
        self.projections = nn.ModuleDict(
            {name: zeroed(nn.Linear(own, width)) for name in self.injection_points}
        )
        self.gradient_checkpointing = False

    @classmethod
    def from_backbone(
        cls,
        backbone: TransformerBackbone,
        *,
        injection: Injection = "all",
        taps: Sequence[str] = (),
        pose_init: PoseInit = "zero",
        hidden_size: int | None = None,
        condition: ConditionKind = "pose",
        seed: int = 0,
    ) -> Self:
        """A float32 side network on the backbone's device that starts as a copy of its blocks.

        Each block is the copy of the backbone's at the same place. `seed` gives the pose encoder's
        weights; the global random state is left as it was. The other arguments are those of the
        class.
        """
        transformer = backbone.main_network
        names = list(chosen_points(injection, backbone.injection_points))
        with seeded(seed):
            side = cls(
                transformer_config={
                    k: v for k, v in transformer.config.items() if not k.startswith("_")
                },
                vae_halvings=backbone.vae_scale_factor.bit_length() - 1,
                time_halvings=backbone.frames_per_latent.bit_length() - 1,
                patch_size=backbone.patch_size,
                injection=names,
                taps=list(taps),
                hidden_size=hidden_size,
                pose_init=pose_init,
                backbone_fingerprint=backbone.fingerprint(),
                condition=condition,
            )
        blocks = dict(zip(backbone.injection_points, backbone.blocks, strict=True))
        width, channels = cls.layout.width(transformer.config), side.channels
        for name, copy in side.blocks.items():
            theirs = blocks[name].state_dict()
            shapes = {key: value.shape for key, value in copy.state_dict().items()}
            copy.load_state_dict(
                {
                    key: narrowed(value, shapes[key], width, channels)
                    for key, value in theirs.items()
                }
            )
        side.train()
        return side.to(backbone.device)

    def _encoded(self, pose_frames: Tensor) -> Tensor:
        """(B, F, 3, H, W) -> (B, N, c)."""
        poses = self.pose_encoder(rearrange(pose_frames, "b f c h w -> b c f h w"))
        return rearrange(poses, "b c t h w -> b (t h w) c")

    def forward(self, pose_frames: Tensor, arguments: BlockArguments) -> SideOutput:
        """Residuals and feature taps, all tokens (B, N, C) and (B, N, c).

        `pose_frames` are (B, F, 3, H, W) in [0, 1] at the size of the decoded video, or what
        `encode_poses` made of them; `arguments` are those that the backbone calls its first block
        with. There may be k * B clips of these, in k runs of B. Raises UserError where the pose
        frames do not match the tokens.
        """
        arguments = {
            name: self._kept(value) if name in self.layout.wide else value
            for name, value in arguments.items()
        }
        poses = self._encoded(pose_frames) if pose_frames.ndim == 5 else pose_frames
        tokens = arguments[self.layout.states[0]]
        poses = poses.repeat(max(1, len(tokens) // len(poses)), 1, 1)
        if poses.shape != tokens.shape:
            raise UserError(
                f"pose frames {tuple(pose_frames.shape)} do not fit the video: they make "
                f"{poses.shape[0]} x {poses.shape[1]} tokens, and it has "
                f"{tokens.shape[0]} x {tokens.shape[1]}"
            )
        arguments[self.layout.states[0]] = tokens + poses
        residuals, features = {}, {}
        for name, block in self.blocks.items():
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                output = self._gradient_checkpointing_func(block, *arguments.values())
            else:
                output = block(*arguments.values())
            arguments |= self.layout.returned(output)
            features[name] = arguments[self.layout.states[0]]
            residuals[name] = self.projections[name](features[name])
        return SideOutput(
            residuals=SideResiduals(residuals),
            taps={name: features[name] for name in self.tap_points},
        )

    def _kept(self, wide: Tensor) -> Tensor:
        """The channels of the backbone's last axis that this network has."""
        if len(self.channels) == wide.shape[-1]:
            return wide
        return wide[..., torch.tensor(self.channels, device=wide.device)]


def narrowed_config(
    layout: BlockLayout, config: Mapping[str, Any], hidden_size: int
) -> dict[str, Any]:
    """The transformer's configuration at another width; UserError unless whole heads make it up."""
    head, heads = config["attention_head_dim"], config["num_attention_heads"]
    if hidden_size % head or not 1 <= hidden_size // head <= heads:
        raise UserError(
            f"side_network.hidden_size={hidden_size}: must be a multiple of {head}, the width of "
            f"an attention head, up to {heads * head}"
        )
    changed = {"num_attention_heads": hidden_size // head}
    if layout.ffn_width is not None:
        changed[layout.ffn_width] = config[layout.ffn_width] * (hidden_size // head) // heads
    return {**config, **changed}


def kept_channels(width: int, hidden_size: int, head: int) -> list[int]:
    """Channels of the backbone that a narrower network keeps: those of evenly spaced heads."""
    heads = evenly(width // head, hidden_size // head)
    return [index * head + channel for index in heads for channel in range(head)]


def evenly(count: int, kept: int) -> list[int]:
    """`kept` of `count` indices, evenly spaced from the first."""
    return [index * count // kept for index in range(kept)]


def narrowed(weight: Tensor, shape: torch.Size, width: int, channels: Sequence[int]) -> Tensor:
    """The part of a backbone's weight that a narrower network of this `shape` keeps.

    Along an axis of k times `width` the kept `channels` of each k-th part; along any other that is
    longer, evenly spaced entries. The weight itself where nothing is narrower.
    """
    for axis, (full, kept) in enumerate(zip(weight.shape, shape, strict=True)):
        if full == kept:
            continue
        if full % width == 0 and kept == full // width * len(channels):
            indices = [start + c for start in range(0, full, width) for c in channels]
        else:
            indices = evenly(full, kept)
        weight = weight.index_select(axis, torch.tensor(indices, device=weight.device))
    return weight

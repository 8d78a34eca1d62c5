"""The temporal side network: a trainable copy of a motion UNet's encoder that reads poses.

Shapes: B batch, F frames, C channels, H W pixels of the pose frames, h w latent cells, L tokens,
D text width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin, UNetMotionModel
from diffusers.configuration_utils import register_to_config
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import Self

from lisa_video.errors import UserError
from lisa_video.injection import MID, InjectionPoint, SideResiduals, injection_points
from lisa_video.loading import load_pretrained

if TYPE_CHECKING:
    from lisa_video.backbones.animatediff import AnimateDiffBackbone

PoseInit = Literal["zero", "normal"]
POSE_CHANNELS = (16, 32, 64, 96, 128, 192, 256)  # after each halving; ControlNet has similar ones


@dataclass(frozen=True)
class SideOutput:
    """What one forward of the side network gives."""

    residuals: SideResiduals
    """The outputs of the zero projections, for the backbone."""
    taps: Mapping[str, Tensor]
    """Feature taps, the inputs of zero projections: injection point -> (B*F, C, h, w)."""


class PoseEncoder(nn.Module):
    """Drawn poses (N, 3, H, W) in [0, 1] -> (N, out_channels, h, w), by stride-2 convolutions.

    `halvings` is the number of stride-2 steps from pixels to latent cells. `init` "zero" is that of
    ControlNet: torch's own, which shrinks the signal in every layer, and a last convolution of
    zeros, so poses come in gradually. With "normal" (Kaiming et al., arXiv:1502.01852) the
    signal keeps its size and the side network sees poses from the first step. Either way the
    zero projections keep the first prediction that of the backbone.
    """

    def __init__(self, out_channels: int, halvings: int, init: PoseInit) -> None:
        super().__init__()
        widths = POSE_CHANNELS[: halvings + 1]
        assert len(widths) == halvings + 1, halvings
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        if init == "zero":
            _zeroed(self.conv_out)
        else:
            for conv in (self.conv_in, *self.blocks, self.conv_out):
                nn.init.kaiming_normal_(conv.weight)
                nn.init.zeros_(conv.bias)

    def forward(self, frames: Tensor) -> Tensor:
        hidden = functional.silu(self.conv_in(frames))
        for conv in self.blocks:
            hidden = functional.silu(conv(hidden))
        encoded: Tensor = self.conv_out(hidden)
        return encoded


class TemporalSideNetwork(ModelMixin, ConfigMixin):
    """Encoder and middle of a motion UNet, a pose encoder, and zero projections.

    Made by `from_backbone`; the configuration below is what `save_pretrained` keeps, and enough to
    load the network without any backbone at hand.

    - `unet_config`: configuration of the backbone's `UNetMotionModel`;
    - `pose_halvings`: stride-2 steps from pose frames to latent cells;
    - `injection`: the injection points that have a zero projection;
    - `taps`: those of them whose features `forward` hands out;
    - `pose_init`: how the pose encoder starts;
    - `backbone_fingerprint`: that of the backbone whose weights were copied.

    Raises UserError where a name in `injection` or `taps` does not exist.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        unet_config: dict[str, Any],
        pose_halvings: int,
        injection: list[str],
        taps: list[str],
        pose_init: PoseInit = "zero",
        backbone_fingerprint: str = "",
    ) -> None:
        super().__init__()
        if not injection:
            known = ", ".join(injection_points(unet_config))
            raise UserError(f"side network: injection names no point, there is {known}")
        self.injection_points = _named(injection, injection_points(unet_config), "injection")
        self.tap_points = _named(taps, self.injection_points, "taps")
        # The backbone's own class builds the encoder, so every weight matches by name and shape.
        unet = UNetMotionModel.from_config(unet_config)
        self.conv_in, self.time_proj = unet.conv_in, unet.time_proj
        self.time_embedding = unet.time_embedding
        self.down_blocks, self.mid_block = unet.down_blocks, unet.mid_block
        self.pose_encoder = PoseEncoder(unet.conv_in.out_channels, pose_halvings, pose_init)
        self.projections = nn.ModuleDict(
            {
                name: _zeroed(nn.Conv2d(point.channels, point.channels, 1))
                for name, point in self.injection_points.items()
            }
        )

    @classmethod
    def from_backbone(
        cls,
        backbone: AnimateDiffBackbone,
        *,
        injection: Sequence[str] | Literal["all"] = "all",
        taps: Sequence[str] = (),
        pose_init: PoseInit = "zero",
        seed: int = 0,
    ) -> Self:
        """A float32 side network on the backbone's device that starts as its encoder's copy.

        Copied are the matching weights: first convolution, time embedding, down blocks and middle
        with their motion modules. `seed` gives the pose encoder's weights; the global random state
        is left as it was. The other arguments are those of the class.
        """
        unet = backbone.unet
        names = list(backbone.injection_points) if injection == "all" else list(injection)
        with torch.random.fork_rng(devices=[]):
            # Unlike torch.manual_seed, which would reach the CUDA generators too.
            torch.default_generator.manual_seed(seed)
            side = cls(
                unet_config={k: v for k, v in unet.config.items() if not k.startswith("_")},
                pose_halvings=backbone.vae_scale_factor.bit_length() - 1,
                injection=names,
                taps=list(taps),
                pose_init=pose_init,
                backbone_fingerprint=backbone.fingerprint(),
            )
        shared = side.state_dict().keys() & unet.state_dict().keys()
        side.load_state_dict({name: unet.state_dict()[name] for name in shared}, strict=False)
        side.train()
        return side.to(backbone.device)

    def check_backbone(self, backbone: AnimateDiffBackbone) -> None:
        """Raise UserError unless `backbone` is the one that this network was built from."""
        own, other = self.config.backbone_fingerprint, backbone.fingerprint()
        if own != other:
            raise UserError(
                f"this side network was made for another backbone: it names {own[:12]}, and this "
                f"one is {other[:12]}; load the backbone that it was trained on"
            )

    def forward(
        self, noisy: Tensor, timesteps: Tensor, text: Tensor, pose_frames: Tensor
    ) -> SideOutput:
        """Residuals and feature taps for `noisy` (B, C, F, h, w) at `timesteps` (B,).

        `text` is (B, L, D), `pose_frames` (B, F, 3, H, W) in [0, 1] at the size of the decoded
        video. Raises UserError where the pose frames do not match the latents.
        """
        batch, _, frames, height, width = noisy.shape
        scale = 1 << self.config.pose_halvings
        expected = (batch, frames, 3, height * scale, width * scale)
        if pose_frames.shape != expected:
            raise UserError(
                f"pose frames {tuple(pose_frames.shape)} do not fit latents {tuple(noisy.shape)}: "
                f"expected {expected}, as (batch, frames, 3, height, width)"
            )
        time = self.time_embedding(self.time_proj(timesteps).to(noisy.dtype))
        time = repeat(time, "b c -> (b f) c", f=frames)
        text = repeat(text, "b l d -> (b f) l d", f=frames)
        hidden = self.conv_in(rearrange(noisy, "b c f h w -> (b f) c h w"))
        hidden = hidden + self.pose_encoder(rearrange(pose_frames, "b f c h w -> (b f) c h w"))
        skips = [hidden]
        for block in self.down_blocks:
            reads = {"encoder_hidden_states": text} if _attends_to_text(block) else {}
            hidden, outputs = block(hidden, temb=time, num_frames=frames, **reads)
            skips.extend(outputs)
        moves = {"num_frames": frames} if hasattr(self.mid_block, "motion_modules") else {}
        hidden = self.mid_block(hidden, time, encoder_hidden_states=text, **moves)
        features = {f"down_{index}": skip for index, skip in enumerate(skips)} | {MID: hidden}
        return SideOutput(
            residuals=SideResiduals(
                {name: project(features[name]) for name, project in self.projections.items()}
            ),
            taps={name: features[name] for name in self.tap_points},
        )


def load_side_network(path: str | PathLike[str]) -> TemporalSideNetwork:
    """The side network saved in a folder, in float32 and eval mode.

    Raises UserError where the folder does not hold a loadable side network.
    """
    side: TemporalSideNetwork = load_pretrained(TemporalSideNetwork, path)
    return side


def _named(
    names: Iterable[str], known: Mapping[str, InjectionPoint], key: str
) -> dict[str, InjectionPoint]:
    """The named injection points, in the order of the encoder."""
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise UserError(
            f"side network: {key} names {', '.join(unknown)}, but there is {', '.join(known)}"
        )
    return {name: point for name, point in known.items() if name in names}


def _attends_to_text(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv

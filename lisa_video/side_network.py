"""The temporal side network: a trainable copy of a motion UNet's encoder that reads a pose sequence.

Shape legend: B batch, F frames, C channels, H W pixels of the pose frames, h w latent cells, L tokens, D text width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin, UNetMotionModel
from diffusers.configuration_utils import register_to_config
from einops import rearrange, repeat
from torch import Tensor, nn

from lisa_video.backbones.residuals import SideResiduals
from lisa_video.errors import UserError

if TYPE_CHECKING:
    from lisa_video.backbones.animatediff import AnimateDiffBackbone

PoseInit = Literal["zero", "normal"]
_POSE_CHANNELS = (16, 32, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class SideOutput:
    """What one forward of the side network gives.

    Attributes:
        residuals: the zero projections' outputs, for the backbone.
        features: every injection point's feature tap, the input of its zero projection: name -> (B*F, C, h, w).
    """

    residuals: SideResiduals
    features: dict[str, Tensor]


class PoseEncoder(nn.Module):
    """Drawn pose frames (N, 3, H, W) in [0, 1] -> (N, C, h, w) at the latent grid, by 2x convolution steps.

    Args:
        out_channels: C, the width of the backbone's first convolution.
        downsample_steps: number of 2x steps; 2 to this power is the VAE's factor.
        init: of the last convolution, "zero" (ControlNet's: poses enter as training goes) or "normal" (torch's own
            initialisation: poses are seen from the first step).
    """

    def __init__(self, out_channels: int, downsample_steps: int, init: PoseInit) -> None:
        super().__init__()
        widths = _POSE_CHANNELS[: downsample_steps + 1]
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in zip(widths, widths[1:], strict=False):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        if init == "zero":
            _zero(self.conv_out)

    def forward(self, frames: Tensor) -> Tensor:
        hidden = nn.functional.silu(self.conv_in(frames))
        for block in self.blocks:
            hidden = nn.functional.silu(block(hidden))
        encoded: Tensor = self.conv_out(hidden)
        return encoded


class TemporalSideNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Encoder and middle of a motion UNet, a pose encoder and zero projections.

    Build it with `from_backbone`; the arguments are what `save_pretrained` stores.

    Args:
        unet_config: configuration of the backbone's `UNetMotionModel`.
        downsample_steps: 2x steps from pose frames to latent cells.
        injection: names of the injection points that get a zero projection; None stands for all.
        pose_init: initialisation of the pose encoder's last convolution.
        backbone_fingerprint: of the backbone whose weights were copied.
    """

    _supports_gradient_checkpointing = True

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        unet_config: dict[str, Any],
        downsample_steps: int,
        injection: list[str] | None = None,
        pose_init: PoseInit = "zero",
        backbone_fingerprint: str = "",
    ) -> None:
        super().__init__()
        # The backbone's own class builds the encoder, so that every weight matches by name and shape.
        unet = UNetMotionModel.from_config(unet_config)
        self.conv_in, self.time_proj = unet.conv_in, unet.time_proj
        self.time_embedding = unet.time_embedding
        self.down_blocks, self.mid_block = unet.down_blocks, unet.mid_block
        self.pose_encoder = PoseEncoder(unet.conv_in.out_channels, downsample_steps, pose_init)
        channels = _point_channels(unet)
        wanted = list(channels) if injection is None else list(injection)
        unknown = [name for name in wanted if name not in channels]
        if unknown or not wanted:
            raise UserError(
                f"side_network.injection {wanted}: known injection points are {', '.join(channels)}"
            )
        self.projections = nn.ModuleDict(
            {name: _zero(nn.Conv2d(channels[name], channels[name], 1)) for name in wanted}
        )
        self.feature_channels = channels

    @classmethod
    def from_backbone(
        cls,
        backbone: AnimateDiffBackbone,
        *,
        injection: list[str] | None = None,
        pose_init: PoseInit = "zero",
        seed: int = 0,
    ) -> TemporalSideNetwork:
        """A float32 side network whose encoder, middle and motion modules are copies of the backbone's.

        Args:
            backbone: the main network.
            injection: as the class; e.g. ["down_5", "mid"].
            pose_init: as the class.
            seed: of the pose encoder's initial weights; the global generator is left as it was.

        Raises:
            UserError: unknown injection point.
        """
        config = {k: v for k, v in backbone.unet.config.items() if not k.startswith("_")}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            side = cls(
                unet_config=config,
                downsample_steps=int(math.log2(backbone.vae_scale_factor)),
                injection=injection,
                pose_init=pose_init,
                backbone_fingerprint=backbone.fingerprint(),
            )
        own = side.state_dict()
        copied = {k: v.float() for k, v in backbone.unet.state_dict().items() if k in own}
        side.load_state_dict(copied, strict=False)
        return side.to(backbone.device)

    def check_backbone(self, backbone: AnimateDiffBackbone) -> None:
        """Refuse a backbone other than the one this side network was built from.

        Raises:
            UserError: the fingerprints differ.
        """
        own, other = self.config.backbone_fingerprint, backbone.fingerprint()
        if own != other:
            raise UserError(
                f"the side network was trained on another backbone (fingerprint {own[:12]}, "
                f"this backbone has {other[:12]}); load the backbone it was trained on"
            )

    def forward(
        self, noisy: Tensor, timesteps: Tensor, text: Tensor, pose_frames: Tensor
    ) -> SideOutput:
        """Read the noisy latents and the poses.

        Args:
            noisy: (B, C, F, h, w).
            timesteps: (B,).
            text: (B, L, D).
            pose_frames: (B, F, 3, H, W) in [0, 1], H and W the size of the decoded video.

        Raises:
            UserError: the number or size of the pose frames does not fit the latents.
        """
        frames = noisy.shape[2]
        factor = 2**self.config.downsample_steps
        expected = (noisy.shape[0], frames, 3, noisy.shape[3] * factor, noisy.shape[4] * factor)
        if tuple(pose_frames.shape) != expected:
            raise UserError(
                f"pose frames of shape {tuple(pose_frames.shape)} do not fit latents of shape "
                f"{tuple(noisy.shape)}: expected {expected}"
            )
        time = self.time_proj(timesteps.expand(noisy.shape[0])).to(noisy.dtype)
        time = repeat(self.time_embedding(time), "b c -> (b f) c", f=frames)
        text = repeat(text, "b l d -> (b f) l d", f=frames)
        hidden = self.conv_in(rearrange(noisy, "b c f h w -> (b f) c h w"))
        hidden = hidden + self.pose_encoder(rearrange(pose_frames, "b f c h w -> (b f) c h w"))
        skips = [hidden]
        for block in self.down_blocks:
            states = {"encoder_hidden_states": text} if _attends_to_text(block) else {}
            hidden, outputs = block(hidden_states=hidden, temb=time, num_frames=frames, **states)
            skips.extend(outputs)
        moves = {"num_frames": frames} if hasattr(self.mid_block, "motion_modules") else {}
        hidden = self.mid_block(hidden, time, encoder_hidden_states=text, **moves)
        features = {f"down_{index}": skip for index, skip in enumerate(skips)} | {"mid": hidden}
        residuals = {
            name: projection(features[name]) for name, projection in self.projections.items()
        }
        return SideOutput(SideResiduals(residuals), features)


def upsample_steps(feature: Tensor, latent: Tensor) -> int:
    """2x steps from a feature's cells (..., h, w) to the latent's (..., H, W), halves rounded up."""
    steps, height = 0, latent.shape[-2]
    while height > feature.shape[-2]:
        steps, height = steps + 1, -(-height // 2)
    return steps


def _point_channels(unet: UNetMotionModel) -> dict[str, int]:
    """Channels at every injection point, in the order in which the encoder produces its skips."""
    channels = [unet.conv_in.out_channels]
    for block in unet.down_blocks:
        channels += [resnet.out_channels for resnet in block.resnets]
        channels += [block.resnets[-1].out_channels] * (block.downsamplers is not None)
    named = {f"down_{index}": count for index, count in enumerate(channels)}
    return named | {"mid": unet.mid_block.resnets[-1].out_channels}


def _attends_to_text(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


def _zero(module: nn.Conv2d) -> nn.Conv2d:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module

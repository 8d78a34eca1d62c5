"""The side network of a motion UNet: a trainable copy of a motion UNet's encoder that reads poses.

Shapes: B batch, F frames, C channels, H W pixels of the pose frames, h w latent cells, L tokens,
D text width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from diffusers import ModelMixin, UNetMotionModel
from diffusers.configuration_utils import register_to_config
from einops import rearrange, repeat
from torch import Tensor, nn
from typing_extensions import Self

from lisa_video.checkpointing import make_motion_checkpointable
from lisa_video.condition_config import ConditionKind
from lisa_video.errors import UserError
from lisa_video.injection import MID, Injection, SideResiduals, chosen_points, unet_points
from lisa_video.side_networks.base import PoseInit, SideNetwork, SideOutput, seeded, zeroed
from lisa_video.side_networks.controlnet import load_controlnet, take_over
from lisa_video.side_networks.pose_encoder import PoseEncoder, pose_widths

if TYPE_CHECKING:
    from lisa_video.backbones.animatediff import AnimateDiffBackbone


class UNetSideNetwork(SideNetwork, ModelMixin):
    """Encoder and middle of a motion UNet, a pose encoder, and zero projections.

    Made by `from_backbone`; the configuration below is what `save_pretrained` keeps, and enough to
    load the network without any backbone at hand.

    - `unet_config`: configuration of the backbone's `UNetMotionModel`;
    - `pose_halvings`: stride-2 steps from pose frames to latent cells;
    - `injection`: the injection points that have a zero projection;
    - `taps`: those of them whose features `forward` hands out;
    - `pose_init`: how the pose encoder starts;
    - `pose_channels`: its channels at full resolution and after each halving; None: its own;
    - `backbone_fingerprint`: that of the backbone whose weights were copied;
    - `condition`: what it is steered by;
    - `motion_modules`: whether the copy has the backbone's motion modules. Without, it looks at each
      frame alone, as a ControlNet does: see `controlnet.exported`.

    Raises UserError where a name in `injection` or `taps` does not exist.
    """

    @register_to_config
    def __init__(
        self,
        unet_config: dict[str, Any],
        pose_halvings: int,
        injection: list[str],
        taps: list[str],
        pose_init: PoseInit = "zero",
        pose_channels: list[int] | None = None,
        backbone_fingerprint: str = "",
        condition: ConditionKind = "pose",
        motion_modules: bool = True,
    ) -> None:
        super().__init__()
        self.injection_points = chosen_points(injection, unet_points(unet_config))
        self.tap_points = chosen_points(taps, self.injection_points, "taps") if taps else {}
        # The backbone's own class builds the encoder, so every weight matches by name and shape.
        unet = UNetMotionModel.from_config(unet_config)
        self.conv_in, self.time_proj = unet.conv_in, unet.time_proj
        self.time_embedding = unet.time_embedding
        self.down_blocks, self.mid_block = unet.down_blocks, unet.mid_block
        if not motion_modules:
            _leave_out_motion((*self.down_blocks, self.mid_block))
        make_motion_checkpointable(self)
        self.pose_encoder = PoseEncoder(
            unet.conv_in.out_channels, pose_channels or pose_widths(pose_halvings), pose_init
        )
        self.projections = nn.ModuleDict(
            {
                name: zeroed(nn.Conv2d(point.channels, point.channels, 1))
                for name, point in self.injection_points.items()
            }
        )

    @classmethod
    def from_backbone(
        cls,
        backbone: AnimateDiffBackbone,
        *,
        injection: Injection = "all",
        taps: Sequence[str] = (),
        pose_init: PoseInit = "zero",
        pose_channels: Sequence[int] | None = None,
        controlnet: str | PathLike[str] | None = None,
        condition: ConditionKind = "pose",
        motion_modules: bool = True,
        seed: int = 0,
    ) -> Self:
        """A float32 side network on the backbone's device that starts as its encoder's copy.

        Copied are the matching weights: first convolution, time embedding, down blocks and middle
        with their motion modules. `seed` gives the pose encoder's weights; the global random state
        is left as it was. `controlnet` is a folder or hub name of a diffusers `ControlNetModel` for
        the same Stable Diffusion: all but the motion modules then starts as its weights, with its
        `pose_channels`, and so does control: see `side_networks.controlnet`. `taken_over` tells
        which. The other arguments are those of the class.
        """
        unet = backbone.main_network
        unet_config = {k: v for k, v in unet.config.items() if not k.startswith("_")}
        pose_halvings = backbone.vae_scale_factor.bit_length() - 1
        trained = None
        if controlnet is not None:
            trained = load_controlnet(controlnet, unet_config, pose_halvings)
            pose_channels = trained.config.conditioning_embedding_out_channels
        with seeded(seed):
            side = cls(
                unet_config=unet_config,
                pose_halvings=pose_halvings,
                injection=list(chosen_points(injection, backbone.injection_points)),
                taps=list(taps),
                pose_init=pose_init,
                pose_channels=None if pose_channels is None else list(pose_channels),
                backbone_fingerprint=backbone.fingerprint(),
                condition=condition,
                motion_modules=motion_modules,
            )
        weights = unet.state_dict()
        shared = side.state_dict().keys() & weights.keys()
        side.load_state_dict({name: weights[name] for name in shared}, strict=False)
        if controlnet is not None:
            side.taken_over = take_over(side, trained, controlnet)
        side.train()
        return side.to(backbone.device)

    def _encoded(self, pose_frames: Tensor) -> Tensor:
        """(B, F, 3, H, W) -> (B*F, channels, h, w)."""
        encoded: Tensor = self.pose_encoder(rearrange(pose_frames, "b f c h w -> (b f) c h w"))
        return encoded

    def forward(
        self, noisy: Tensor, timesteps: Tensor, text: Tensor, pose_frames: Tensor
    ) -> SideOutput:
        """Residuals and feature taps for `noisy` (B, C, F, h, w) at `timesteps` (B,).

        `pose_frames` are (B, F, 3, H, W) in [0, 1] at the size of the decoded video, or what
        `encode_poses` made of them. `text` is (k * B, L, D): for k > 1 as many clips come out, and
        the blocks before the first that reads text run once for all of them. Raises UserError where
        the pose frames do not match the latents.
        """
        frames = noisy.shape[2]
        if pose_frames.ndim == 5:
            self._check_pose_frames(pose_frames, noisy)
            pose_frames = self._encoded(pose_frames)
        time = self.time_embedding(self.time_proj(timesteps).to(noisy.dtype))
        time = repeat(time, "b c -> (b f) c", f=frames)
        text = repeat(text, "b l d -> (b f) l d", f=frames)
        hidden = self.conv_in(rearrange(noisy, "b c f h w -> (b f) c h w")) + pose_frames
        skips = [hidden]
        for block in self.down_blocks:
            reads = {}
            if _attends_to_text(block):
                reads = {"encoder_hidden_states": text}
                hidden, time = _copied(hidden, text), _copied(time, text)
            hidden, outputs = block(hidden, temb=time, num_frames=frames, **reads)
            skips.extend(outputs)
        moves = {"num_frames": frames} if hasattr(self.mid_block, "motion_modules") else {}
        hidden, time = _copied(hidden, text), _copied(time, text)
        hidden = self.mid_block(hidden, time, encoder_hidden_states=text, **moves)
        features = {f"down_{index}": skip for index, skip in enumerate(skips)} | {MID: hidden}
        return SideOutput(
            residuals=SideResiduals(
                {
                    name: _copied(project(features[name]), text)
                    for name, project in self.projections.items()
                }
            ),
            taps={name: _copied(features[name], text) for name in self.tap_points},
        )

    def _check_pose_frames(self, pose_frames: Tensor, noisy: Tensor) -> None:
        batch, _, frames, height, width = noisy.shape
        scale = 1 << self.config.pose_halvings
        expected = (batch, frames, 3, height * scale, width * scale)
        if pose_frames.shape != expected:
            raise UserError(
                f"pose frames {tuple(pose_frames.shape)} do not fit latents {tuple(noisy.shape)}: "
                f"expected {expected}, as (batch, frames, 3, height, width)"
            )


def _copied(frames: Tensor, text: Tensor) -> Tensor:
    """Frames of B clips (B*F, ...) once for each of the texts (k*B*F, L, D)."""
    copies = len(text) // len(frames)
    return frames if copies == 1 else frames.repeat(copies, *[1] * (frames.ndim - 1))


class _Still(nn.Module):
    """In the place of a motion module: frames stay as they are."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states


def _leave_out_motion(blocks: Iterable[nn.Module]) -> None:
    for block in blocks:
        modules = getattr(block, "motion_modules", None)
        if modules is not None:
            block.motion_modules = nn.ModuleList(_Still() for _ in modules)


def _attends_to_text(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))

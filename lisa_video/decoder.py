"""The LISA decoder: reads the likelihood prediction out of one feature of the side network.

Shapes: B batch, F (latent) frames, C feature channels, h w feature cells, H W latent cells.
Source: the authors' image decoder (Wang et al., "LISA", arXiv:2606.27192), applied frame by frame.
It serves training only; generation never needs it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from lisa_video.injection import InjectionPoint

TIME_EMBEDDING_DIM = 256
MIN_CHANNELS = 64
POINTWISE_FROM_CHANNELS = 512
TOKEN_CHANNELS = 320  # what the authors' own decoder has after its 1x1 convolution


class LisaDecoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Feature (B*F, C, h, w), or tokens (B, F*h*w, C) -> likelihood prediction (B, C_latent, F, H, W).

    Config: `in_channels`, channels C of the tapped feature; `latent_channels`, channels of the
    latent; `upsample_steps`, number of 2x steps from the feature's cells to the latent's, which
    undo a transformer's patches; `max_channels`, bound of the channels after the first step: 1x1
    convolutions from the wide tokens of a transformer would else dominate (a departure, None for
    UNets). The last convolution is zero-initialised, so a new decoder predicts 0.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        upsample_steps: int,
        max_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.time_projection = nn.Linear(TIME_EMBEDDING_DIM, in_channels)
        self.upsample_steps = upsample_steps
        self.convs = nn.ModuleList()
        channels = in_channels
        for step in range(upsample_steps):
            narrowed = min(narrowed_channels(channels), max_channels or channels)
            pointwise = step == 0 and channels >= POINTWISE_FROM_CHANNELS
            self.convs.append(_same_size_conv(channels, narrowed, kernel=1 if pointwise else 3))
            channels = narrowed
        if upsample_steps == 0:
            self.convs.append(_same_size_conv(channels, channels, kernel=3))
        self.conv_out = _same_size_conv(channels, latent_channels, kernel=3)
        nn.init.zeros_(self.conv_out.weight)
        assert self.conv_out.bias is not None
        nn.init.zeros_(self.conv_out.bias)

    def forward(
        self,
        feature: Tensor,
        timesteps: Tensor,
        num_frames: int,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Predict `regression target - prior prediction`, in the backbone's parametrisation.

        `feature` is (B*F, C, h, w), frames of a clip adjacent, or tokens (B, F*h*w, C) in the order
        of frames, rows and columns; `timesteps` (B,) holds one timestep per clip, shared by its
        `num_frames` frames, latent frames where the VAE compresses time. `size` (H, W) is the
        latent's size; None stands for exactly 2^upsample_steps times the feature's. It has to be
        given for tokens, and where the latent's size is odd on the way down, because a UNet's
        downsampling rounds up.
        """
        if feature.dim() == 3:
            assert size is not None
            height, _ = _halved(size, self.upsample_steps)
            feature = rearrange(feature, "b (f h w) c -> (b f) c h w", f=num_frames, h=height)
        full = _doubled(feature.shape[-2:], self.upsample_steps) if size is None else size
        time = get_timestep_embedding(
            timesteps, TIME_EMBEDDING_DIM, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        time = functional.silu(self.time_projection(time.to(feature.dtype)))
        hidden = feature + repeat(time, "b c -> (b f) c 1 1", f=num_frames)
        for step, conv in enumerate(self.convs):
            hidden = functional.silu(conv(hidden))
            steps_left = self.upsample_steps - 1 - step
            if steps_left >= 0:
                hidden = functional.interpolate(hidden, _halved(full, steps_left), mode="nearest")
        assert hidden.shape[-2:] == torch.Size(full), (hidden.shape, full)
        prediction: Tensor = self.conv_out(hidden)
        return rearrange(prediction, "(b f) c h w -> b c f h w", f=num_frames)


class TapDecoders(nn.ModuleDict):
    """One `LisaDecoder` for each feature tap, by injection point."""

    def forward(
        self,
        features: Mapping[str, Tensor],
        timesteps: Tensor,
        num_frames: int,
        size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        """The prediction (B, C_latent, F, H, W) of each tap; arguments as `LisaDecoder.forward`."""
        predictions = {}
        for tap, decoder in self.items():
            predictions[tap] = decoder(features[tap], timesteps, num_frames, size)
        return predictions

    def save_pretrained(self, folder: Path) -> None:
        """Save as diffusers saves a model, each in its folder of `decoder_folders`."""
        folders = decoder_folders(folder, list(self))
        for tap, decoder in self.items():
            assert isinstance(decoder, LisaDecoder)
            decoder.save_pretrained(folders[tap])


def decoder_folders(folder: Path, taps: Sequence[str]) -> dict[str, Path]:
    """Where the decoders of `taps` are saved: in `folder` itself, or in one each where several."""
    return {tap: folder if len(taps) == 1 else folder / tap for tap in taps}


def new_decoder(point: InjectionPoint, latent_channels: int) -> LisaDecoder:
    """An untrained decoder for the feature tapped at `point`."""
    bound = TOKEN_CHANNELS if point.tokens else None
    decoder: LisaDecoder = LisaDecoder(point.channels, latent_channels, point.halvings, bound)
    return decoder


def narrowed_channels(channels: int) -> int:
    """Channels after one upsampling step: half, but not below 64 and never more than before."""
    return min(channels, max(channels // 2, MIN_CHANNELS))


def _same_size_conv(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)


def _doubled(size: tuple[int, int] | torch.Size, times: int) -> tuple[int, int]:
    height, width = size
    return height << times, width << times


def _halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """`size` after `times` stride-2 convolutions with padding 1: halves rounded up."""
    height, width = size
    return -(-height >> times), -(-width >> times)

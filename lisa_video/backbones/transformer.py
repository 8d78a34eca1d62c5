"""Video transformers as main network: what the adapters of Wan and CogVideoX share.

Control is added to the tokens after a block. The blocks of an unmodified diffusers model are
wrapped for the time of one forward: to note what they are called with, to add a residual, or to
hand on what an earlier forward computed.

Shapes: B batch, F video frames, T latent frames, C latent channels, h w latent cells, N tokens.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from einops import rearrange
from torch import Tensor, nn

from lisa_video.adapters import adapted_layers, without_lora
from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.injection import InjectionPoint, SideResiduals, block_points
from lisa_video.offloading import execution_device
from lisa_video.side_networks.base import SideOutput
from lisa_video.side_networks.transformer import (
    BlockArguments,
    BlockLayout,
    TransformerSideNetwork,
)


class TransformerBackbone(VideoBackbone):
    """A frozen video transformer whose VAE makes 1 + k latent frames of 1 + 4k video frames."""

    side_network_class: ClassVar[type[TransformerSideNetwork]]
    frames_per_latent: ClassVar[int] = 4
    text_tokens: int
    """L, the length that prompts are padded to."""

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Latent cells along each side of a token's patch."""

    @property
    @abstractmethod
    def _vae_channels(self) -> int:
        """Channels that the VAE makes."""

    @abstractmethod
    def _scaled(self, latents: Tensor) -> Tensor:
        """Latents of the VAE as the transformer takes them."""

    @abstractmethod
    def _unscaled(self, latents: Tensor) -> Tensor:
        """The inverse of `_scaled`."""

    @abstractmethod
    def _forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The model's own forward, (B, C, T, h, w) in and out."""

    @property
    def layout(self) -> BlockLayout:
        """How its transformer is made of blocks."""
        return self.side_network_class.layout

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer's blocks."""
        blocks: nn.ModuleList = getattr(self.main_network, self.layout.blocks)
        return blocks

    @property
    def size_multiple(self) -> int:
        return self.vae_scale_factor * self.patch_size

    @property
    def latent_channels(self) -> int:
        return int(self.main_network.config.in_channels)

    def _all_points(self) -> Mapping[str, InjectionPoint]:
        width = self.layout.width(self.main_network.config)
        return block_points(len(self.blocks), width, self.patch_size)

    def _check_parts(self) -> None:
        config = self.main_network.config
        if config.in_channels != config.out_channels:
            raise UserError(
                f"this transformer takes {config.in_channels} channels and makes "
                f"{config.out_channels}: it is one of image-to-video, and only text-to-video fits"
            )
        if config.in_channels != self._vae_channels:
            raise UserError(
                f"the transformer takes {config.in_channels} channels and the VAE makes "
                f"{self._vae_channels}: they are not of one checkpoint"
            )

    # Pixels, latents and text.

    @torch.no_grad()
    def encode_video(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        video = rearrange(pixels, "b f c h w -> b c f h w").to(self.vae.device, self.vae.dtype)
        posterior = self.vae.encode(video).latent_dist
        return self._scaled(posterior.mode() if generator is None else posterior.sample(generator))

    @torch.no_grad()
    def decode_chunks(self, latents: Tensor) -> Iterator[Tensor]:
        latents = latents.to(execution_device(self.vae))
        latents = self._unscaled(latents).to(self.vae.dtype)
        whole = self.vae.use_tiling or (self.vae.use_slicing and len(latents) > 1)
        chunks = [self.vae.decode(latents).sample] if whole else self._decoded(latents)
        for video in chunks:
            yield rearrange(video.float(), "b c f h w -> b f c h w").clamp(-1, 1)

    @abstractmethod
    def _decoded(self, latents: Tensor) -> Iterator[Tensor]:
        """What the VAE's own decoding of all latents makes, chunk by chunk, (B, 3, f, H, W).

        Its causal convolutions remember what came before, as they do in diffusers' own loop.
        """

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """As diffusers' pipeline encodes them: Wan has zeros after a prompt's end, CogVideoX what
        the text encoder makes of padding."""
        text: Tensor = self._text_pipeline.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            max_sequence_length=self.text_tokens,
            device=execution_device(self.text_encoder),
        )[0]
        return text

    @cached_property
    def _text_pipeline(self) -> DiffusionPipeline:
        """diffusers' pipeline over the parts that encode prompts."""
        return self.pipeline_class(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=None,
            transformer=self.main_network,
            scheduler=self.scheduler,
        )

    @property
    def text_length(self) -> int:
        return self.text_tokens

    # Predictions.

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        residuals: SideResiduals | None = None,
    ) -> Tensor:
        if residuals is None:
            with without_lora(self.main_network):
                return self._forward(noisy, timesteps, text)
        with self._wrapped(self._controlled(residuals)):
            return self._forward(noisy, timesteps, text)

    def predict_with_prior(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        residuals: SideResiduals,
        prior_clips: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As the base has it; the blocks up to the first injection, but for those with adapters and
        what follows them, run once, without a graph."""
        last = min(self._index(name) for name in residuals.points)
        last = min(last, self._first_adapted() - 1)
        if last < 0:
            return self._predict_apart(noisy, timesteps, text, residuals, prior_clips)
        with torch.no_grad(), without_lora(self.main_network):
            prior, states = self._prior(noisy, timesteps, text, last, prior_clips)
        handed_on = _handed_on(states, last)
        with self._wrapped(handed_on | self._controlled(residuals, handed_on)):
            return self._forward(noisy, timesteps, text), prior

    def _prior(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        last: int,
        clips: Tensor | None,
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The prior, of these clips, and what the block at index `last` gave back, of all."""
        noted = _Noted(self.blocks[last], self.layout)
        if clips is None:
            with self._wrapped({last: noted}):
                return self._forward(noisy, timesteps, text), noted.states
        # The prior of all clips goes on from there at once; that of some needs a forward of its own.
        later = range(last + 1, len(self.blocks))
        skipped = {index: _Skipped(self.blocks[index], self.layout) for index in later}
        with self._wrapped({last: noted, **skipped}):
            self._forward(noisy, timesteps, text)
        states = {name: state[clips] for name, state in noted.states.items()}
        with self._wrapped(_handed_on(states, last)):
            return self._forward(noisy[clips], timesteps[clips], text[clips]), noted.states

    def side_output(
        self,
        side_network: nn.Module,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        pose_frames: Tensor,
    ) -> SideOutput:
        copies = len(text) // len(noisy)
        clips = noisy.to(self.dtype).repeat(copies, 1, 1, 1, 1)
        arguments = self.block_arguments(clips, timesteps.repeat(copies), text)
        cast = {
            name: value.to(noisy.dtype) if isinstance(value, Tensor) else value
            for name, value in arguments.items()
        }
        output: SideOutput = side_network(pose_frames, cast)
        return output

    @torch.no_grad()
    def block_arguments(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> BlockArguments:
        """What the frozen transformer calls its first block with; the blocks do not run."""
        first = _Skipped(self.blocks[0], self.layout)
        rest = range(1, len(self.blocks))
        skipped = {0: first} | {i: _Skipped(self.blocks[i], self.layout) for i in rest}
        with without_lora(self.main_network), self._wrapped(skipped):
            self._forward(noisy, timesteps, text)
        return first.arguments

    def _controlled(
        self, residuals: SideResiduals, blocks: Mapping[int, nn.Module] | None = None
    ) -> dict[int, nn.Module]:
        """Blocks, or what stands for them, with the residuals added to their tokens."""
        points = {self._index(name): value for name, value in residuals.points.items()}
        replaced = blocks or {}
        return {
            index: _Controlled(replaced.get(index, self.blocks[index]), value)
            for index, value in points.items()
        }

    def _first_adapted(self) -> int:
        """The first block with adapters, 0 where other layers have some; without, beyond the last."""
        start = f"{self.layout.blocks}."
        return min(
            (
                int(name.removeprefix(start).split(".")[0]) if name.startswith(start) else 0
                for name in adapted_layers(self.main_network)
            ),
            default=len(self.blocks),
        )

    def _index(self, name: str) -> int:
        return list(self.injection_points).index(name)

    @contextmanager
    def _wrapped(self, replaced: Mapping[int, nn.Module]) -> Iterator[None]:
        """Let other modules stand in the places of some blocks."""
        blocks = self.blocks
        standing = [replaced.get(index, block) for index, block in enumerate(blocks)]
        setattr(self.main_network, self.layout.blocks, nn.ModuleList(standing))
        try:
            yield
        finally:
            setattr(self.main_network, self.layout.blocks, blocks)


class _Controlled(nn.Module):
    """A block whose tokens receive a residual."""

    def __init__(self, block: nn.Module, residual: Tensor) -> None:
        super().__init__()
        self.block, self.residual = block, residual

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.block(*args, **kwargs)
        if isinstance(output, tuple):
            return (output[0] + self.residual, *output[1:])
        return output + self.residual


class _Noted(nn.Module):
    """A block that notes what it gave back."""

    states: Mapping[str, Tensor]

    def __init__(self, block: nn.Module, layout: BlockLayout) -> None:
        super().__init__()
        self.block, self.layout = block, layout

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.block(*args, **kwargs)
        self.states = self.layout.returned(output)
        return output


class _HandedOn(nn.Module):
    """What a block gave back in an earlier forward, in its place."""

    def __init__(self, states: Mapping[str, Tensor]) -> None:
        super().__init__()
        values = tuple(states.values())
        self.output = values if len(values) > 1 else values[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.output


def _handed_on(states: Mapping[str, Tensor], last: int) -> dict[int, nn.Module]:
    """In the places of the blocks up to `last`, which gave back `states`."""
    return {index: _HandedOn(states) for index in range(last + 1)}


class _Skipped(nn.Module):
    """Notes what a block is called with, and hands that on."""

    arguments: BlockArguments

    def __init__(self, block: nn.Module, layout: BlockLayout) -> None:
        super().__init__()
        self.block, self.layout = block, layout

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.arguments = self.layout.arguments(self.block, args, kwargs)
        values = tuple(self.arguments[name] for name in self.layout.states)
        return values if len(values) > 1 else values[0]

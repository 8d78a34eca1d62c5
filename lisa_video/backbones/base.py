"""The backbone protocol: what training, generation and evaluation ask of a frozen main network.

A backbone is a thin adapter around an unmodified diffusers checkpoint: main network, VAE, text
encoder, tokenizer and noise schedule. One file each, listed in `lisa_video.backbones.BACKBONES`.

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells,
L tokens of text, D text width.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from einops import reduce
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lisa_video.adapters import has_lora
from lisa_video.backbones.noise import noise_path
from lisa_video.backbones.parts import BackboneParts
from lisa_video.encoders import FrozenEncoder
from lisa_video.errors import UserError
from lisa_video.injection import InjectionPoint, SideResiduals
from lisa_video.predictions import PredictionType
from lisa_video.side_networks.base import SideNetwork, SideOutput


class VideoBackbone(BackboneParts, ABC):
    """A frozen main network with its VAE, text encoder, tokenizer and noise schedule.

    Raises UserError where the parts are no checkpoint of this kind that can be steered.
    """

    kind: ClassVar[str]
    """Its name in the table of backbones."""
    prediction_types: ClassVar[tuple[PredictionType, ...]]
    """What its main network may have been trained to predict."""
    side_network_class: ClassVar[type[SideNetwork]]
    """What steers it."""
    pipeline_class: ClassVar[type[DiffusionPipeline]]
    """diffusers' own pipeline of such checkpoints."""
    frames_per_latent: ClassVar[int] = 1
    """Video frames to a latent frame after the first: 1 + k * this many become 1 + k."""

    latent_layout: ClassVar[str] = "b c t h w"
    """Axes of latents, as an einops pattern, in diffusers' own pipeline of such checkpoints."""

    text_tokens: int | None = None
    """Length that prompts are padded to, where it can be chosen."""
    injection_points: Mapping[str, InjectionPoint]
    """Where residuals can be added, by name, in the order in which the main network runs."""

    def __init__(
        self,
        main_network: ModelMixin,
        vae: ModelMixin | FrozenEncoder,
        text_encoder: PreTrainedModel | FrozenEncoder,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
    ) -> None:
        super().__init__(main_network, vae, text_encoder, tokenizer, scheduler)
        self._check_parts()
        self.noise = noise_path(scheduler)
        if self.noise.prediction_type not in self.prediction_types:
            raise UserError(
                f"scheduler {type(scheduler).__name__} is for {self.noise.prediction_type}, and a "
                f"backbone of kind {self.kind} predicts {' or '.join(self.prediction_types)}"
            )
        self.injection_points = self._all_points()

    @abstractmethod
    def _check_parts(self) -> None:
        """Raise UserError unless the parts belong together and can be steered."""

    @abstractmethod
    def _all_points(self) -> Mapping[str, InjectionPoint]:
        """The injection points of the main network."""

    def new_side_network(self, **settings: Any) -> SideNetwork:
        """An untrained side network; `settings` are those of its class's `from_backbone`.

        Raises UserError where the class takes no such setting, and as `from_backbone` does.
        """
        assert not has_lora(self.main_network), "adapters rename what a side network copies"
        make: Callable[..., SideNetwork] = self.side_network_class.from_backbone
        unknown = sorted(settings.keys() - inspect.signature(make).parameters.keys())
        if unknown:
            raise UserError(
                f"side_network.{unknown[0]}: a backbone of kind {self.kind} takes no such setting"
            )
        return make(self, **settings)

    # What it is.

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """C."""

    @property
    @abstractmethod
    def vae_scale_factor(self) -> int:
        """Pixels per latent cell along each axis, a power of 2."""

    @property
    def size_multiple(self) -> int:
        """What width and height in pixels must be multiples of."""
        return self.vae_scale_factor

    @property
    @abstractmethod
    def frame_size(self) -> tuple[int, int] | None:
        """Width and height in pixels of the video that it was trained on, where it says so."""

    @property
    @abstractmethod
    def max_frames(self) -> int:
        """Most video frames at once."""

    @property
    def frame_step(self) -> int:
        """Video frames are 1 + k * this many; a multiple of `frames_per_latent`."""
        return self.frames_per_latent

    @property
    def prediction_type(self) -> PredictionType:
        """What the main network predicts."""
        return self.noise.prediction_type

    @property
    def num_timesteps(self) -> int:
        """Timesteps run from 0 to this, exclusive."""
        return self.noise.num_timesteps

    # Frames and sizes.

    def latent_frames(self, frames: int) -> int:
        """T of F video frames that `check_frames` lets pass."""
        return 1 + (frames - 1) // self.frames_per_latent

    def check_frames(self, frames: int, key: str = "frames") -> None:
        """Raise UserError unless that many video frames fit; it says which would."""
        if frames < 1:
            raise UserError(f"{key}={frames}: must be at least 1")
        if frames > self.max_frames:
            raise UserError(
                f"{key}={frames}: this backbone takes at most {self.max_frames} at once"
            )
        step = self.frame_step
        over = (frames - 1) % step
        if over:
            near = [
                each for each in (frames - over, frames - over + step) if each <= self.max_frames
            ]
            raise UserError(
                f"{key}={frames}: the VAE takes 1 + {step}k frames; "
                f"{' or '.join(map(str, near))} would fit"
            )

    def check_size(self, size: tuple[int, int], key: str = "size") -> None:
        """Raise UserError unless video of this width and height in pixels fits."""
        multiple = self.size_multiple
        if min(size) < 1 or any(side % multiple for side in size):
            raise UserError(f"{key}={list(size)}: both must be multiples of {multiple}")

    def latent_frame_means(self, values: Tensor) -> Tensor:
        """Values of video frames (B, F) -> their means over each latent frame (B, T)."""
        step = self.frames_per_latent
        later = reduce(values[:, 1:], "b (t s) -> b t", "mean", s=step)
        return torch.cat([values[:, :1], later], dim=1)

    # Pixels, latents and text.

    @abstractmethod
    def encode_video(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pixels (B, F, 3, H, W) in [-1, 1] -> normalised latents (B, C, T, h, w).

        The posterior is sampled with `generator`; without one its mode is taken.
        """

    @torch.no_grad()
    def decode_video(self, latents: Tensor) -> Tensor:
        """Normalised latents (B, C, T, h, w) -> float32 pixels (B, F, 3, H, W) in [-1, 1]."""
        return torch.cat(list(self.decode_chunks(latents)), dim=1)

    @abstractmethod
    def decode_chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """What `decode_video` makes, a few frames at a time and in their order: (B, f, 3, H, W).

        Memory does not grow with T, other than with the tiles of a VAE that compresses time: such
        a VAE decodes the whole video tile by tile.
        """

    @abstractmethod
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Prompts -> (B, L, D): shorter ones padded, longer ones cut, see `cut_text`."""

    @property
    @abstractmethod
    def text_length(self) -> int:
        """L."""

    def cut_text(self, prompt: str) -> str:
        """The end of a prompt that `encode_text` cuts off; empty where it reads all of it."""
        tokens = self.tokenizer(prompt, verbose=False).input_ids
        # The last token, which marks the end, is kept in any case.
        text: str = self.tokenizer.decode(tokens[self.text_length - 1 : -1])
        return text.strip()

    # Noise.

    def signal_and_noise(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """a and s of x_t = a x_0 + s n at timesteps (B,): two float32 tensors (B, 1, 1, 1, 1)."""
        return self.noise.signal_and_noise(timesteps)

    def sample_timesteps(
        self, batch: int, generator: torch.Generator | None = None, shift: float = 1.0
    ) -> Tensor:
        """Draw timesteps (B,) on the backbone's device.

        Uniform at shift 1, towards high noise above, see `predictions.shifted_time`.
        """
        return self.noise.sample(batch, generator, shift).to(self.device)

    # Predictions.

    @abstractmethod
    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        residuals: SideResiduals | None = None,
    ) -> Tensor:
        """One forward of the unmodified main network: (B, C, T, h, w) in its own parametrisation.

        `noisy` (B, C, T, h, w), `timesteps` (B,), `text` (B, L, D). `residuals` are what the side
        network adds; None gives the prior prediction, for which adapters are left out.
        """

    @abstractmethod
    def predict_with_prior(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        residuals: SideResiduals,
        prior_clips: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Controlled and prior prediction, both (B, C, T, h, w); what control leaves alone runs
        once.

        Equal to `predict` with and without residuals. Gradients flow into the residuals of the
        controlled prediction; the prior is made without gradient. Arguments as `predict`;
        `prior_clips`, long (P,), are the indices of the clips whose prior (P, C, T, h, w) is made,
        where it is not that of all.
        """

    def _predict_apart(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        residuals: SideResiduals,
        prior_clips: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """`predict_with_prior` by two forwards, where adapters leave nothing to share."""
        clips = slice(None) if prior_clips is None else prior_clips
        with torch.no_grad():
            prior = self.predict(noisy[clips], timesteps[clips], text[clips])
        return self.predict(noisy, timesteps, text, residuals), prior

    @abstractmethod
    def side_output(
        self,
        side_network: nn.Module,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        pose_frames: Tensor,
    ) -> SideOutput:
        """Run a side network of this backbone, bare or wrapped, in the dtype of `noisy`.

        `noisy`, `timesteps` and `text` as in `predict`; `pose_frames` (B, F, 3, H, W) in [0, 1], or
        what `SideNetwork.encode_poses` made of them. `text` may hold k * B entries, as for both
        halves of guidance: then so many clips come out, the B clips with the first B texts, with
        the next B, and so on, and what reads no text runs once.
        """

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the main network's activations in the backward pass."""
        self.main_network.enable_gradient_checkpointing()

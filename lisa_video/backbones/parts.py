"""The parts of a frozen checkpoint: how they are loaded, where they are, and which they are."""

from __future__ import annotations

import hashlib
import inspect
import json
from os import PathLike
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin, SchedulerMixin
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from lisa_video.adapters import freeze, own_weights
from lisa_video.encoders import FrozenEncoder, load_components
from lisa_video.loading import ComponentTable, cast


class BackboneParts:
    """A main network, a VAE, a text encoder, a tokenizer and a noise schedule.

    They are unmodified objects of diffusers and transformers; they are put in eval mode and none of
    their parameters asks for a gradient.
    """

    components: ClassVar[ComponentTable]
    """The parts in a diffusers folder and the classes they may have; the first is the main network,
    the others are vae, text_encoder, tokenizer and scheduler."""

    def __init__(
        self,
        main_network: ModelMixin,
        vae: ModelMixin | FrozenEncoder,
        text_encoder: PreTrainedModel | FrozenEncoder,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
    ) -> None:
        self.main_network, self.tokenizer, self.scheduler = main_network, tokenizer, scheduler
        self.encoders = {
            name: part if isinstance(part, FrozenEncoder) else FrozenEncoder.of(part)
            for name, part in (("vae", vae), ("text_encoder", text_encoder))
        }
        freeze(main_network)
        self._fingerprint: str | None = None

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        local_files_only: bool = False,
        encoders_later: bool = False,
    ) -> Self:
        """Load from a diffusers folder or hub name; weights are read from safetensors only.

        With `encoders_later`, VAE and text encoder are loaded when they are first asked for.
        `revision` is a branch, tag or commit of `path` on the hub, `local_files_only` never asks
        the hub. Raises UserError where there is nothing loadable, or a component is missing or of
        another class than this backbone's.
        """
        hub = {"revision": revision, "local_files_only": local_files_only}
        parts = load_components(path, cls.components, hub, encoders_later=encoders_later)
        return cls(*parts).to(dtype=dtype)

    # Its encoders.

    @property
    def vae(self) -> ModelMixin:
        """The VAE, loaded by now; UserError where it cannot be."""
        return self.encoders["vae"].model()

    @property
    def text_encoder(self) -> PreTrainedModel:
        """The text encoder, loaded by now; UserError where it cannot be."""
        return self.encoders["text_encoder"].model()

    @property
    def vae_config(self) -> Any:
        """The VAE's configuration, which is known before it is loaded."""
        return self.encoders["vae"].config

    def load_encoders(self) -> None:
        """Load what has not been loaded yet; UserError where it cannot be."""
        for encoder in self.encoders.values():
            encoder.model()

    def park_encoders(self) -> None:
        """Move VAE and text encoder to main memory until they are asked for again."""
        for encoder in self.encoders.values():
            encoder.park()

    # What it is, and where.

    @property
    def network_name(self) -> str:
        """What diffusers' pipelines call the main network."""
        return next(iter(self.components))

    @property
    def device(self) -> torch.device:
        return self.main_network.device

    @property
    def dtype(self) -> torch.dtype:
        return self.main_network.dtype

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move and cast every part, and return self. The fingerprint stays that before the cast."""
        if dtype not in (None, self.dtype):
            self._fingerprint = self.fingerprint()
        cast(self.main_network, dtype)
        self.main_network.to(device=device)
        for encoder in self.encoders.values():
            encoder.to(device, dtype)
        return self

    def fingerprint(self) -> str:
        """sha256 over the main network's configuration and float32 weights without adapters; side
        networks remember it. Weights on the meta device have no values and are left out."""
        if self._fingerprint is None:
            config = json.dumps(_settings_beside_defaults(self.main_network), sort_keys=True)
            digest = hashlib.sha256(config.encode())
            for name, weights in sorted(own_weights(self.main_network).items()):
                digest.update(name.encode())
                if not weights.is_meta:
                    digest.update(weights.float().cpu().contiguous().numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def _settings_beside_defaults(model: ModelMixin) -> dict[str, Any]:
    """The configuration without defaults, so that a setting new in diffusers changes nothing."""
    parameters = inspect.signature(type(model).__init__).parameters
    settings = {name: model.config[name] for name in parameters if name in model.config}
    return {
        name: value
        for name, value in settings.items()
        if json.dumps(value) != json.dumps(parameters[name].default)
    }

"""One training step without any memory: the real models and losses on torch's fake tensors.

Models are built from their configurations, run by the code that a training runs, and only shapes
and lifetimes of tensors are followed. So what is counted is what autograd really keeps: with this
backbone, side network and decoder, either objective, gradient checkpointing or not, this precision,
this attention kernel.

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells,
L tokens of text, D text width.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lisa_video.attention import use_attention
from lisa_video.attention_config import AttentionChoice
from lisa_video.backbones.base import VideoBackbone
from lisa_video.buckets import Bucket
from lisa_video.memory.tracker import MemoryTracker
from lisa_video.training.adapters import moved
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import TrainConfig
from lisa_video.training.losses import Conditions, NoisedLatents, noise_latents, training_losses
from lisa_video.training.objective import lisa_at
from lisa_video.training.optimizer import parameter_groups
from lisa_video.training.setup import DTYPES, open_backbone, start_networks

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class FakeTraining:
    """What a training holds, on fake tensors."""

    config: TrainConfig
    mode: FakeTensorMode
    backbone: VideoBackbone
    networks: Networks

    @property
    def trained(self) -> list[nn.Module]:
        """Side network and, under the LISA objective, decoder."""
        return [each for each in (self.networks.side_network, self.networks.decoder) if each]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that are trained."""
        groups = parameter_groups(self.config, self.networks)
        return [each for group in groups for each in group["params"]]


@dataclass(frozen=True)
class StepMemory:
    """Bytes beyond weights, optimizer and average."""

    batch: int
    """What the networks read: noised latents, target, text states, drawn poses."""
    activations: int
    """Most that forward and backward hold at once of all that is no gradient of a weight."""
    peak: int
    """Most that they hold at once, with the gradients that there are by then, where the first pass
    begins with none."""


def fake_training(config: TrainConfig, published: Path, *, on_cuda: bool) -> FakeTraining:
    """Build what a training builds, from configurations.

    Hub names are looked up in the folder `published` first. `on_cuda` computes normalisations under
    mixed precision in float32, as autocast on CUDA does. Raises UserError where a configuration
    cannot be read, or does not fit.
    """
    config = replace(config, backbone=_from_published(config, published))
    with torch.device("meta"):
        backbone = open_backbone(config.backbone, DTYPES[config.mixed_precision])
        networks = start_networks(config, backbone, None)
    for shape in shapes(config):
        backbone.check_frames(shape.frames, "data.frames")
        backbone.check_size(shape.size, "data.size")
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        parts = [networks.side_network, networks.average, networks.decoder]
        for module in (backbone.main_network, backbone.vae, backbone.text_encoder, *parts):
            if module is not None:
                module.to_empty(device="cpu")
        backbone.text_encoder.tie_weights()  # which have become two
        networks = replace(networks, lora=moved(networks.lora))
    side, main = networks.side_network, backbone.main_network
    # Every kernel but the plain formula keeps no attention matrix.
    kernel: AttentionChoice = "math" if config.attention == "math" else "sdpa"
    use_attention(kernel, (main, side), DTYPES[config.mixed_precision], training=True)
    side.train()
    trained: list[nn.Module] = [side]
    if networks.decoder is not None:
        trained.append(networks.decoder)
    for module in trained:
        if on_cuda:
            _norms_in_float32(module)
        _autocast_forward(module, DTYPES[config.mixed_precision])
    return FakeTraining(config, mode, backbone, networks)


def shapes(config: TrainConfig) -> list[Bucket]:
    """Of the windows that are trained."""
    data = config.data
    buckets = [Bucket(frames, (width, height)) for frames, width, height in data.buckets]
    return buckets or [Bucket(data.frames, data.size)]


def step_memory(training: FakeTraining, *, checkpointing: bool) -> StepMemory:
    """One forward and backward pass, with the alignment loss, on the largest shape of windows."""
    config, networks, backbone = training.config, training.networks, training.backbone
    if checkpointing:
        networks.side_network.enable_gradient_checkpointing()
        backbone.enable_gradient_checkpointing()
    else:
        networks.side_network.disable_gradient_checkpointing()
        backbone.main_network.disable_gradient_checkpointing()
    step = config.alignment.every  # the first with an alignment loss
    lisa = lisa_at(config.alignment, networks.decoder, step)
    tracker = MemoryTracker()
    tracker.ignore(backbone.main_network, *training.trained)
    tracker.watch(training.parameters)
    with training.mode, tracker, warnings.catch_warnings():
        # Of CPU kernels that are slow for a mixture of dtypes: none runs here.
        warnings.filterwarnings("ignore", message="Mismatch dtype")
        noised, conditions = _inputs(training)
        batch = tracker.held
        terms = training_losses(backbone, networks.side_network, noised, conditions, lisa)
        terms.total.backward()
    for parameter in training.parameters:
        parameter.grad = None
        parameter._post_accumulate_grad_hooks = None  # type: ignore[assignment]
    return StepMemory(batch, tracker.activations - batch, tracker.peak - batch)


def encoding_memory(training: FakeTraining) -> tuple[int, int]:
    """Most bytes that VAE and text encoder need beyond their weights, for one clip, one caption."""
    backbone = training.backbone
    shape = largest(training.config)
    width, height = shape.size
    peaks = []
    for encoder in (backbone.vae, backbone.text_encoder):
        tracker = MemoryTracker()
        tracker.ignore(encoder)
        with training.mode, tracker, torch.no_grad():
            if encoder is backbone.vae:
                backbone.encode_video(torch.zeros(1, shape.frames, 3, height, width))
            else:
                encoder(torch.zeros(1, text_shape(backbone)[0], dtype=torch.long))
        peaks.append(tracker.peak)
    return peaks[0], peaks[1]


def largest(config: TrainConfig) -> Bucket:
    """The shape with the most pixels."""
    return max(shapes(config), key=lambda shape: shape.frames * shape.size[0] * shape.size[1])


def text_shape(backbone: VideoBackbone) -> tuple[int, int]:
    """(L, D) of a caption's states."""
    config = backbone.text_encoder.config
    tokens = getattr(backbone, "text_tokens", None) or config.max_position_embeddings
    return tokens, config.hidden_size


def _inputs(training: FakeTraining) -> tuple[NoisedLatents, Conditions]:
    """What `prepare_batch` makes of a batch of the largest shape."""
    backbone, batch = training.backbone, training.config.data.batch_size
    shape = largest(training.config)
    frames, (width, height) = shape.frames, shape.size
    factor, latent_frames = backbone.vae_scale_factor, backbone.latent_frames(frames)
    latents = torch.zeros(
        (batch, backbone.latent_channels, latent_frames, height // factor, width // factor),
        dtype=backbone.dtype,
    )
    kind = torch.float32 if backbone.prediction_type == "flow" else torch.long
    timesteps = torch.zeros(batch, dtype=kind)
    noise = torch.zeros_like(latents, dtype=torch.float32)
    conditions = Conditions(
        text=torch.zeros(batch, *text_shape(backbone), dtype=backbone.dtype),
        pose_frames=torch.zeros(batch, frames, 3, height, width),
        frame_weights=torch.ones(batch, latent_frames),
    )
    return noise_latents(backbone, latents, noise, timesteps), conditions


def _norms_in_float32(module: nn.Module) -> None:
    """Under autocast, normalisations as on CUDA: on a CPU they keep their input's dtype."""
    for each in module.modules():
        if isinstance(each, nn.LayerNorm | nn.GroupNorm):
            each.register_forward_pre_hook(_in_float32)


def _in_float32(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    return (inputs[0].float(),) if torch.is_autocast_enabled("cpu") else None


def _autocast_forward(module: nn.Module, dtype: torch.dtype) -> None:
    """As accelerate prepares a model for mixed precision."""
    if dtype != torch.float32:
        forward = torch.autocast("cpu", dtype)(module.forward)
        module.forward = convert_outputs_to_fp32(forward)  # type: ignore[method-assign]


def _from_published(config: TrainConfig, published: Path) -> Any:
    """The settings of the backbone with the folder of its configurations for each hub name."""

    def folder(name: str) -> str:
        known = not Path(name).is_dir() and (published / name).is_dir()
        return str(published / name) if known else name

    backbone = config.backbone
    adapter = backbone.motion_adapter
    return replace(
        backbone,
        path=folder(backbone.path),
        motion_adapter=None if adapter is None else folder(adapter),
    )

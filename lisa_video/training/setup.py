"""What a run starts from: backbone, clips, probe and networks, each checked against the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

from lisa_video.adapters import remove_lora
from lisa_video.attention import use_attention
from lisa_video.backbones import load_backbone
from lisa_video.backbones.base import VideoBackbone
from lisa_video.caching.clips import TrainingClips, stack_clips
from lisa_video.decoder import TapDecoders, new_decoder
from lisa_video.errors import UserError
from lisa_video.side_networks.base import SideNetwork, seeded
from lisa_video.training.adapters import start_adapters
from lisa_video.training.average import frozen_copy
from lisa_video.training.checkpoint import (
    Networks,
    load_decoder,
    load_trainable,
    read_index,
    verify_checkpoint,
)
from lisa_video.training.config import BackboneConfig, Precision, TrainConfig
from lisa_video.training.draws import Purpose, clip_shift, stream_seed
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.freezing import freeze_parts, frozen_line
from lisa_video.training.optimizer import build_optimizer, parameter_groups
from lisa_video.training.probe import AdherenceProbe
from lisa_video.training.provenance import Provenance, provenance
from lisa_video.training.run_folder import check_run_folder, start_checkpoint
from lisa_video.training.sources import Sources, open_sources
from lisa_video.training.trackers import check_trackers
from lisa_video.training.validation import check_validation

DTYPES: dict[Precision, torch.dtype] = {
    "no": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def check_training(config: TrainConfig) -> None:
    """Raise UserError for all that can be wrong before the first step; write nothing."""
    check_run_folder(config)
    check_precision(config)
    backbone = open_backbone(config.backbone, DTYPES[config.mixed_precision], encoders_later=True)
    sources = open_sources(config, backbone)
    sources.check()
    make_encoder(config, backbone)
    if not sources.encoded:
        backbone.load_encoders()
    check_validation(config, backbone, sources)
    check_trackers(config)
    checkpoint = start_checkpoint(config)
    if checkpoint is not None:
        verify_checkpoint(checkpoint, contents=False)
    checked_provenance(config, checkpoint, sources)
    networks = start_networks(config, backbone, checkpoint)
    choose_attention(config, backbone, networks.side_network)
    build_optimizer(config.optimizer, parameter_groups(config, networks))


def check_precision(config: TrainConfig) -> None:
    """Raise UserError where this machine cannot train in `mixed_precision`."""
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise UserError("mixed_precision=fp16: needs a GPU; this machine can train in no or bf16")


def checked_provenance(
    config: TrainConfig, checkpoint: Path | None, sources: Sources
) -> Provenance:
    """The run's clips and code; UserError where they are not those of the checkpoint to go on from,
    and need to be."""
    here = provenance(sources)
    if checkpoint is None:
        return here
    there = read_index(checkpoint).provenance
    if there.data != here.data and "data" not in config.allowed_changes:
        raise UserError(
            f"{checkpoint}: clips, captions or poses that the run reads have changed since; bring "
            "back the old ones, or go on with these by --allow_changed data"
        )
    if not there.code.same(here.code) and "code" not in config.allowed_changes:
        raise UserError(
            f"{checkpoint}: is by {there.code}, and this is {here.code}; bring back the old one, "
            "or go on with this by --allow_changed code"
        )
    return here


def choose_attention(config: TrainConfig, backbone: VideoBackbone, side: SideNetwork) -> str:
    """Set the attention kernel of both networks and say which it is; UserError as `use_attention`."""
    dtype = DTYPES[config.mixed_precision]
    return use_attention(config.attention, (backbone.main_network, side), dtype, training=True)


def open_backbone(
    settings: BackboneConfig, dtype: torch.dtype = torch.float32, *, encoders_later: bool = False
) -> VideoBackbone:
    """Load the backbone that a config names; VAE and text encoder perhaps when they are used."""
    special = {
        "motion_adapter": settings.motion_adapter,
        "beta_schedule": settings.beta_schedule,
        "text_tokens": settings.text_tokens,
    }
    options = {name: value for name, value in special.items() if value is not None}
    return load_backbone(
        settings.kind, settings.path, dtype=dtype, encoders_later=encoders_later, **options
    )


def open_encoder(config: TrainConfig) -> ClipEncoder:
    """The backbone of a run, on this process's device, with its encoders, which are loaded when they
    are asked for; errors as `open_backbone` and `make_encoder`."""
    dtype = DTYPES[config.mixed_precision]
    backbone = open_backbone(config.backbone, dtype, encoders_later=True)
    return make_encoder(config, backbone.to(PartialState().device))


def make_encoder(config: TrainConfig, backbone: VideoBackbone) -> ClipEncoder:
    """The encoders of a run; UserError where they do not work as its settings say."""
    return ClipEncoder(
        backbone,
        cache=config.data.cache_encodings,
        park=config.offload == "encoders",
        frames_at_once=config.data.encode_frames_at_once,
    )


def build_probe(config: TrainConfig, encoder: ClipEncoder, clips: TrainingClips) -> AdherenceProbe:
    """The adherence probe on the first of these clips, of the validation split."""
    batch = stack_clips(
        [clips.clip(index, 0) for index in range(min(config.probe.clips, len(clips)))]
    )
    latents = encoder.batch_latents(batch)
    return AdherenceProbe(
        config.probe,
        encoder.backbone,
        latents,
        encoder.batch_text(batch, [False] * len(batch.ids)),
        batch.pose_frames,
        shift=clip_shift(config.timesteps, encoder.backbone, latents.shape[1:]),
        at_once=config.data.batch_size,
    )


def start_networks(
    config: TrainConfig, backbone: VideoBackbone, checkpoint: Path | None
) -> Networks:
    """New networks, or those of the checkpoint to go on from; adapters go into the backbone."""
    remove_lora(backbone.main_network)  # of an earlier run on the same backbone
    networks = (
        new_networks(config, backbone)
        if checkpoint is None
        else stored_networks(config, backbone, checkpoint)
    )
    freeze_parts(networks.side_network, config.side_network.freeze)
    lora, lora_average = start_adapters(config, backbone, checkpoint)
    return replace(networks, lora=lora, lora_average=lora_average)


def network_lines(config: TrainConfig, networks: Networks) -> list[str]:
    """What is frozen of the side network, and trained of the main network, for the user."""
    lines = []
    if config.side_network.freeze:
        lines.append(frozen_line(networks.side_network, config.side_network.freeze))
    if networks.lora is not None:
        lines.append(networks.lora.line())
    return lines


def new_networks(config: TrainConfig, backbone: VideoBackbone) -> Networks:
    """The networks at step 0; for one seed the side network is the same under both objectives."""
    settings = config.side_network
    if settings.init_from is not None:
        side = load_trainable(settings.init_from, backbone, _taps(config))
        _check_condition(config, side)
    else:
        special = {
            "hidden_size": settings.hidden_size,
            "controlnet": settings.controlnet,
            "motion_modules": None if settings.motion_modules else False,
        }
        side = backbone.new_side_network(
            injection=settings.injection,
            taps=_taps(config),
            pose_init=settings.pose_init,
            condition=config.data.condition,
            seed=config.seed,
            **{name: value for name, value in special.items() if value is not None},
        )
    return Networks(
        side_network=side,
        average=frozen_copy(side) if config.ema.decay else None,
        decoder=_new_decoder(config, side, backbone) if config.objective == "lisa" else None,
    )


def stored_networks(config: TrainConfig, backbone: VideoBackbone, checkpoint: Path) -> Networks:
    """The networks of a checkpoint; UserError where they are of another backbone."""
    average = decoder = None
    if config.ema.decay:
        average = frozen_copy(load_trainable(checkpoint / "average", backbone, _taps(config)))
    if config.objective == "lisa":
        decoder = load_decoder(checkpoint / "decoder", backbone, _taps(config))
    side = load_trainable(checkpoint / "side_network", backbone, _taps(config))
    return Networks(side, average, decoder)


def _taps(config: TrainConfig) -> list[str]:
    return config.alignment.taps if config.objective == "lisa" else []


def _check_condition(config: TrainConfig, side: SideNetwork) -> None:
    try:
        side.check_condition(config.data.condition)
    except UserError as error:
        raise UserError(
            f"side_network.init_from={config.side_network.init_from}: {error}"
        ) from None


def _new_decoder(config: TrainConfig, side: SideNetwork, backbone: VideoBackbone) -> TapDecoders:
    decoders = TapDecoders()
    for number, tap in enumerate(config.alignment.taps):
        with seeded(stream_seed(config.seed, Purpose.DECODER, number)):
            decoders[tap] = new_decoder(side.tap_points[tap], backbone.latent_channels)
    return decoders.to(backbone.device)

"""The training loop: a side network on a frozen backbone, under the plain or the LISA objective.

Steps are counted by the optimizer: "step k" in logs, checkpoints and callbacks means after k
updates, and step 0 is the untrained network.

Shapes: B batch, F frames, C latent channels, H W pixels, h w latent cells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from einops import rearrange
from torch import Tensor, nn
from tqdm import tqdm

from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.training.average import update_average
from lisa_video.training.batches import Batch, BatchStream
from lisa_video.training.checkpoint import (
    CheckpointState,
    Networks,
    latest_checkpoint,
    load_state,
    replace_folder,
    save_checkpoint,
)
from lisa_video.training.config import OptimizerConfig, TrainConfig
from lisa_video.training.draws import Purpose, draw, stream_seed
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.losses import (
    Conditions,
    LisaObjective,
    LossTerms,
    NoisedLatents,
    log_values,
    noise_latents,
    scalars,
    training_losses,
)
from lisa_video.training.run_folder import RunLog, check_run_folder, claim_run_folder
from lisa_video.training.setup import (
    DTYPES,
    build_probe,
    check_precision,
    choose_attention,
    open_backbone,
    open_dataset,
    start_networks,
)


@dataclass(frozen=True)
class TrainState:
    """A run at one step, for `on_step` and as the result; its networks live on and change."""

    step: int
    """Optimizer steps done."""
    backbone: VideoBackbone
    networks: Networks


OnStep = Callable[[int, TrainState], object]


def train(
    config: TrainConfig, *, encoder: ClipEncoder | None = None, on_step: OnStep | None = None
) -> TrainState:
    """Train, or go on with the run in `config.output`, and save the finished networks there.

    `encoder` shares a loaded backbone, and what it has encoded, between runs; without one the
    backbone is loaded. `on_step(step, state)` is called in the main process at step 0 and after
    every step, before that step's checkpoint: after an interruption it is called again for the
    steps that are done again. Every step sets torch's global seed.

    Raises UserError for what `check_training` finds, and where a loss is not finite.
    """
    # The run: new, or going on.
    check_run_folder(config)
    check_precision(config)
    accelerator = _build_accelerator(config)
    checkpoint = latest_checkpoint(config.output)
    state = None if checkpoint is None else load_state(checkpoint)
    first_step = 0 if state is None else state.step

    # Backbone and clips.
    if encoder is None:
        backbone = open_backbone(config.backbone, DTYPES[config.mixed_precision]).to(
            accelerator.device
        )
        encoder = ClipEncoder(backbone, cache=config.data.cache_encodings)
    backbone = encoder.backbone
    clips = open_dataset(config, backbone, config.data.split)
    stream = BatchStream(
        clips, config, process=accelerator.process_index, processes=accelerator.num_processes
    )
    if accelerator.is_main_process and len(clips.buckets) > 1:
        print(*stream.bucket_lines(), sep="\n")
    probe = build_probe(config, encoder) if config.probe.every else None

    # Networks, and what makes them move.
    networks = start_networks(config, backbone, checkpoint)
    side, decoder = networks.side_network, networks.decoder
    kernel = choose_attention(config, backbone, side)
    if accelerator.is_main_process:
        print(kernel)
    if accelerator.is_main_process and side.taken_over is not None:
        print(*side.taken_over.lines(), sep="\n")
    trained: list[nn.Module] = [side] if decoder is None else [side, decoder]
    lr_scales = (1.0, config.alignment.decoder_lr_scale)
    parameters = [parameter for module in trained for parameter in module.parameters()]
    if config.gradient_checkpointing:
        side.enable_gradient_checkpointing()
        backbone.enable_gradient_checkpointing()
    wrapped: list[nn.Module] = [accelerator.prepare(module) for module in trained]
    optimizer = accelerator.prepare(_build_optimizer(config.optimizer, trained))
    if state is not None:
        optimizer.load_state_dict(state.optimizer)
        if state.scaler is not None:
            accelerator.scaler.load_state_dict(state.scaler)
    lisa = None
    if decoder is not None:
        lisa = LisaObjective(wrapped[1], config.alignment.tap, config.alignment.weight)

    # The log.
    log = None
    if accelerator.is_main_process:
        claim_run_folder(config)
        log = RunLog(config.output, first_step)
    bar = tqdm(
        desc=f"train {config.objective}",
        initial=first_step,
        total=config.steps,
        unit="step",
        disable=not accelerator.is_main_process,
    )

    def report(step: int, values: dict[str, float | list[float]]) -> None:
        """What follows a step in the main process: probe, log, callback, checkpoint."""
        if log is None:
            return
        last = step == config.steps
        if probe is not None and (step % config.probe.every == 0 or last):
            measured = probe.measure(side).values()
            values = values | {f"probe/{name}": value for name, value in measured.items()}
        if values:
            log.write(step, values)
        if on_step is not None:
            on_step(step, TrainState(step, backbone, networks))
        if step and (step % config.checkpoint_every == 0 or last):
            scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
            save_checkpoint(
                config.output,
                networks,
                CheckpointState(step, optimizer.state_dict(), scaler),
                keep=config.keep_checkpoints,
            )

    if first_step == 0:
        report(0, {})

    batches = stream.batches(first_step)
    for step in range(first_step + 1, config.steps + 1):
        # Forward and backward, once for each accumulated pass.
        started, data_s = time.perf_counter(), 0.0
        torch.manual_seed(_module_seed(config.seed, step, accelerator.process_index))
        side.train()
        for group, scale in zip(optimizer.param_groups, lr_scales, strict=False):
            group["lr"] = scale * learning_rate(config.optimizer, step)
        passes: list[Tensor] = []
        for _ in range(config.optimizer.gradient_accumulation_steps):
            asked = time.perf_counter()
            batch = next(batches)
            noised, conditions = prepare_batch(config, encoder, batch)
            data_s += time.perf_counter() - asked
            with accelerator.accumulate(*wrapped):
                losses = training_losses(backbone, wrapped[0], noised, conditions, lisa)
                _require_finite(losses, step, batch)
                accelerator.backward(losses.total)

                # The update; only after the last pass: accelerate skips the others.
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(parameters, config.optimizer.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            passes.append(scalars(losses))
        if networks.average is not None:
            update_average(networks.average, side, config.ema.decay, step)

        # What is left behind.
        values: dict[str, float | list[float]] = {}
        if step % config.log_every == 0 or step == config.steps:
            values = log_values(accelerator.reduce(torch.stack(passes).mean(dim=0), "mean"))
            values |= {
                "lr": learning_rate(config.optimizer, step),
                "grad_norm": float(norm),
                # Apart, since a run whose clips another has encoded before waits for none.
                "step_s": time.perf_counter() - started - data_s,
                "data_s": data_s,
            }
            bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        bar.update()
        report(step, values)
    bar.close()

    # The finished networks.
    accelerator.wait_for_everyone()
    if log is not None:
        log.close()
        replace_folder(config.output / "side_network", networks.finished.save_pretrained)
        if decoder is not None:
            replace_folder(config.output / "decoder", decoder.save_pretrained)
    return TrainState(config.steps, backbone, networks)


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Of the update that makes step `step`, counted from 1: linear warm-up, then constant."""
    return config.lr * min(1.0, step / max(1, config.warmup_steps))


def prepare_batch(
    config: TrainConfig, encoder: ClipEncoder, batch: Batch
) -> tuple[NoisedLatents, Conditions]:
    """Encode, noise and drop: what the networks read of a batch, on the backbone's device."""
    backbone, clips = encoder.backbone, batch.clips
    device = backbone.device
    latents = encoder.latents(clips.pixels)
    draws = draw(config, backbone, batch.positions, latents.shape[1:])
    captions = [
        "" if dropped else caption
        for caption, dropped in zip(clips.captions, draws.text_dropped.tolist(), strict=True)
    ]
    pose_kept = ~draws.pose_dropped
    weights = clips.frame_weights
    if not config.alignment.frame_weighting:
        weights = torch.ones_like(weights)
    noised = noise_latents(backbone, latents, draws.noise.to(device), draws.timesteps.to(device))
    conditions = Conditions(
        text=encoder.text(captions),
        pose_frames=(clips.pose_frames * rearrange(pose_kept, "b -> b 1 1 1 1")).to(device),
        frame_weights=backbone.latent_frame_means(weights * rearrange(pose_kept, "b -> b 1")).to(
            device
        ),
    )
    return noised, conditions


def _build_accelerator(config: TrainConfig) -> Accelerator:
    # A point without projection leaves encoder weights behind it unused.
    subset = DistributedDataParallelKwargs(
        find_unused_parameters=config.side_network.injection != "all"
    )
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.optimizer.gradient_accumulation_steps,
        kwargs_handlers=[subset],
    )


def _build_optimizer(config: OptimizerConfig, modules: list[nn.Module]) -> torch.optim.Optimizer:
    """One parameter group per module, in their order."""
    groups = [{"params": list(module.parameters())} for module in modules]
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
    )


def _module_seed(seed: int, step: int, process: int) -> int:
    """Of the global generator, which dropout inside a network draws from."""
    return stream_seed(seed, Purpose.MODULES, step) + process


def _require_finite(losses: LossTerms, step: int, batch: Batch) -> None:
    if not torch.isfinite(losses.total):
        raise UserError(
            f"step {step}: the loss is {losses.total.item()} on clips "
            f"{', '.join(batch.clips.ids)}; look at these clips, or lower optimizer.lr"
        )

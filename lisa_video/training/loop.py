"""The training loop: a side network on a frozen backbone, under the plain or the LISA objective.

Steps are counted by the optimizer: "step k" in logs, checkpoints and callbacks means after k
updates, and step 0 is the untrained network.

Shapes: B batch, F frames, C latent channels, H W pixels, h w latent cells.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from lisa_video.training.acceleration import (
    backward,
    build_accelerator,
    clip_gradients,
    prepare_networks,
    prepare_optimizer,
)
from lisa_video.training.agreement import in_main_process, require_same
from lisa_video.training.average import update_averages
from lisa_video.training.checkpoint import CheckpointState, load_state, verify_checkpoint
from lisa_video.training.config import TrainConfig
from lisa_video.training.draws import Purpose, stream_seed
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.generators import seed_generators
from lisa_video.training.interruption import Interruption
from lisa_video.training.losses import log_values, scalars, training_losses
from lisa_video.training.objective import lisa_at
from lisa_video.training.optimizer import (
    build_optimizer,
    learning_rate,
    parameter_groups,
    restore_optimizer,
    set_learning_rate,
)
from lisa_video.training.pace import Pace
from lisa_video.training.preparation import prepare_batch
from lisa_video.training.reporting import Reporter, probe_along
from lisa_video.training.run_folder import claim_run_folder, held_run_folder, start_checkpoint
from lisa_video.training.run_record import RunRecord
from lisa_video.training.saving import (
    CheckpointKeeper,
    Snapshot,
    clear_leftovers,
    disk_full_named,
    save_finished,
)
from lisa_video.training.setup import (
    build_probe,
    check_precision,
    checked_provenance,
    choose_attention,
    network_lines,
    open_encoder,
    start_networks,
)
from lisa_video.training.sharding import check_sharding, whole_weights
from lisa_video.training.sources import open_sources
from lisa_video.training.state import OnStep, TrainState
from lisa_video.training.validation import build_validator


def train(
    config: TrainConfig, *, encoder: ClipEncoder | None = None, on_step: OnStep | None = None
) -> TrainState:
    """Train, or go on with the run in `config.output`, and save the finished networks there.

    `encoder` shares a loaded backbone, and what it has encoded, between runs; without one the
    backbone is loaded. `on_step(step, state)` is called in the main process at step 0 and after
    every step, before that step's checkpoint: after an interruption it is called again for the
    steps that are done again. Every step sets the global seeds of torch, NumPy and Python.

    Raises UserError for what `check_training` finds, where another process runs in the folder, a
    loss is not finite or the disk is full; Interrupted where a signal stopped the run, which
    `Interruption` takes note of from the first step on.
    """
    check_precision(config)
    accelerator = build_accelerator(config)
    check_sharding(config)
    with (
        ExitStack() as contexts,
        RunRecord(config) as record,
        disk_full_named(config.output),
        Interruption(speaks=accelerator.is_main_process) as interruption,
    ):
        in_main_process(accelerator, lambda: contexts.enter_context(held_run_folder(config)))
        return _train(config, accelerator, contexts, interruption, record, encoder, on_step)


def _train(
    config: TrainConfig,
    accelerator: Accelerator,
    contexts: ExitStack,
    interruption: Interruption,
    record: RunRecord,
    encoder: ClipEncoder | None,
    on_step: OnStep | None,
) -> TrainState:
    # The run: new, or going on.
    in_main_process(accelerator, lambda: clear_leftovers(config.output))
    checkpoint = start_checkpoint(config)
    require_same(
        str(checkpoint),
        f"output={config.output}: processes see different checkpoints there; it has to lie on "
        "storage that all of them share",
    )
    state = None
    if checkpoint is not None:
        in_main_process(accelerator, partial(verify_checkpoint, checkpoint))
        state = load_state(checkpoint)
    first_step = 0 if state is None else state.step

    # Backbone and clips.
    if encoder is None:
        encoder = open_encoder(config)
    backbone = encoder.backbone
    sources = open_sources(config, backbone)
    stream = sources.stream(
        config, process=accelerator.process_index, processes=accelerator.num_processes
    )
    if state is not None:
        stream.require_sharing(state.sharing)
    if accelerator.is_main_process and len(sources.training.buckets) > 1:
        print(*stream.bucket_lines(), sep="\n")
    probe = None if sources.probe is None else build_probe(config, encoder, sources.probe)
    origin = in_main_process(accelerator, partial(checked_provenance, config, checkpoint, sources))
    validator = build_validator(config, encoder, sources, accelerator)

    # Networks, and what makes them move.
    networks = start_networks(config, backbone, checkpoint)
    side = networks.side_network
    kernel = choose_attention(config, backbone, side)
    if accelerator.is_main_process:
        print(kernel)
    if accelerator.is_main_process and side.taken_over is not None:
        print(*side.taken_over.lines(), sep="\n")
    for line in network_lines(config, networks):
        accelerator.print(line)
    if config.gradient_checkpointing:
        side.enable_gradient_checkpointing()
        backbone.enable_gradient_checkpointing()
    prepared = prepare_networks(accelerator, backbone, networks)
    groups = parameter_groups(config, networks)
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = prepare_optimizer(
        accelerator, build_optimizer(config.optimizer, groups), prepared, config
    )
    if state is not None:
        restore_optimizer(optimizer, state.optimizer)
        if state.scaler is not None:
            accelerator.scaler.load_state_dict(state.scaler)

    # What is shown of it, and kept.
    reporter = None
    if origin is not None:
        claim_run_folder(config)
        record.start(first_step, backbone, origin, accelerator.num_processes)
        reporter = Reporter(config, backbone, networks, probe, on_step, first_step)
    if first_step == 0:
        validation = None if validator is None else validator.at(0, networks)
        if reporter is None:
            probe_along(config, networks, probe, 0)
        else:
            reporter.report(0, {}, validation)
    keeper = CheckpointKeeper(
        config,
        accelerator,
        lambda step: Snapshot(
            networks,
            CheckpointState.of(step, optimizer, accelerator.scaler, stream.sharing),
            whole_weights(networks),
        ),
        origin,
        interruption,
        first_step,
    )
    bar = contexts.enter_context(
        tqdm(
            desc=f"train {config.objective}",
            initial=first_step,
            total=config.steps,
            unit="step",
            disable=not accelerator.is_main_process,
        )
    )

    interruption.listen()
    batches = stream.batches(first_step)
    pace = Pace(accelerator.device, accelerator.num_processes)
    for step in range(first_step + 1, config.steps + 1):
        # Forward and backward, once for each accumulated pass.
        started, data_s = time.perf_counter(), 0.0
        seed_generators(_module_seed(config.seed, step, accelerator.process_index))
        side.train()
        set_learning_rate(optimizer, learning_rate(config.optimizer, step, config.steps))
        lisa = lisa_at(config.alignment, prepared.decoder, step)
        passes: list[Tensor] = []
        ids: list[str] = []
        for _ in range(config.optimizer.gradient_accumulation_steps):
            asked = time.perf_counter()
            batch = next(batches)
            noised, conditions = prepare_batch(config, encoder, batch)
            ids += batch.clips.ids
            data_s += time.perf_counter() - asked
            pace.add_clips(*batch.clips.pose_frames.shape[:2])
            with accelerator.accumulate(*prepared.synchronised):
                losses = training_losses(backbone, prepared.side_network, noised, conditions, lisa)
                keeper.require_finite_loss(step, losses.total, batch.clips.ids)
                backward(accelerator, optimizer, losses.total)

                # The update; only after the last pass: accelerate skips the others.
                if accelerator.sync_gradients:
                    norm = clip_gradients(
                        accelerator,
                        optimizer,
                        parameters,
                        config.optimizer.max_grad_norm,
                        prepared.replicated,
                    )
                    keeper.require_finite_gradient(step, norm, ids)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            passes.append(scalars(losses))
        update_averages(networks, config.ema, step)

        # What is left behind.
        values: dict[str, float | list[float]] = {}
        if step % config.log_every == 0 or step == config.steps:
            values = log_values(accelerator.reduce(torch.stack(passes).mean(dim=0), "mean"), lisa)
            values |= {
                "lr": learning_rate(config.optimizer, step, config.steps),
                "grad_norm": float(norm),
                # Apart, since a run whose clips another has encoded before waits for none.
                "step_s": time.perf_counter() - started - data_s,
                "data_s": data_s,
            }
        pace.add_step(time.perf_counter() - started, data_s)
        if values:
            values |= pace.values()
        validation = None if validator is None else validator.at(step, networks)
        if reporter is None:
            probe_along(config, networks, probe, step)
        else:
            reporter.report(step, values, validation)
            bar.set_postfix_str(reporter.summary, refresh=False)
        bar.update()
        stopping = keeper.after_step(step)
        if keeper.saved == step:
            record.update(step)
        if stopping:
            break
    bar.close()
    if reporter is not None:
        reporter.close()
    keeper.end()

    # The finished networks.
    weights = whole_weights(networks)
    in_main_process(accelerator, lambda: save_finished(config.output, networks, weights))
    return TrainState(config.steps, backbone, networks)


def _module_seed(seed: int, step: int, process: int) -> int:
    """Of the global generators, which dropout inside a network draws from."""
    return stream_seed(seed, Purpose.MODULES, step) + process

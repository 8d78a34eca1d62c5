"""Training state that the processes of a run share among them: ZeRO, of DeepSpeed.

Stage 2 splits gradients and optimizer state, stage 3 the trained weights as well. The frozen backbone
and the average stay whole in every process.

Rajbhandari et al., "ZeRO", arXiv:1910.02054.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.optim import Optimizer

from lisa_video.errors import UserError
from lisa_video.training.config import TrainConfig, aligned_steps
from lisa_video.training.split_tensors import gathered

FLAG = "ACCELERATE_USE_DEEPSPEED"
_INSTEAD = "launch with configs/accelerate/fsdp2.yaml, which shares the backbone's weights as well"
_MOMENTS = ("exp_avg", "exp_avg_sq")
# Elements of the buffers in which gradients are averaged and weights fetched ahead.
_BUCKET = 50_000_000


def zero_stage() -> int | None:
    """That which `accelerate launch` has set for this process; None without DeepSpeed."""
    if not parse_flag_from_env(FLAG):
        return None
    return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))


def check_zero(config: TrainConfig) -> None:
    """Raise UserError for what does not train under DeepSpeed."""
    stage = zero_stage()
    if stage is None:
        return
    if find_spec("deepspeed") is None:
        raise UserError("DeepSpeed: is not installed; pip install 'lisa_video[deepspeed]'")
    if os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none") != "none":
        raise UserError(
            "DeepSpeed: deepspeed_config_file is not read, since the training's own keys decide; "
            "launch with configs/accelerate/deepspeed_zero2.yaml or deepspeed_zero3.yaml"
        )
    if stage not in (2, 3):
        raise UserError(f"DeepSpeed: zero_stage={stage}: give 2 or 3")
    for part in ("OPTIMIZER", "PARAM"):
        if os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{part}_DEVICE", "none") != "none":
            raise UserError(
                f"DeepSpeed: offload_{part.lower()}_device: give none; to train from main memory "
                "launch with configs/accelerate/fsdp2.yaml and fsdp_offload_params: true"
            )
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise UserError("DeepSpeed: one process has nothing to share; launch without it")
    if config.mixed_precision == "fp16":
        raise UserError("DeepSpeed: mixed_precision=fp16 is not supported; give bf16 or no")
    if config.optimizer.kind not in ("adamw", "adamw_fused"):
        raise UserError(f"DeepSpeed: optimizer.kind={config.optimizer.kind}: give adamw")
    if config.lora.rank:
        raise UserError(f"DeepSpeed: adapters do not train with it; set lora.rank 0, or {_INSTEAD}")
    aligned = aligned_steps(config.alignment, config.steps)
    if config.objective == "lisa" and aligned < config.steps:
        raise UserError(
            "DeepSpeed: alignment.every and alignment.until: it would move the decoder in steps "
            f"without an alignment loss too; give every 1 and no until, or {_INSTEAD}"
        )


class ZeroOptimizer(Optimizer):
    """An optimizer of which each process keeps and moves its part of the trained weights.

    It is the optimizer that it is made from: its groups, and states of whole tensors. DeepSpeed clips
    and updates in one, see `update`, and does not add to gradients that it has used.
    """

    def __init__(
        self, networks: Sequence[nn.Module], optimizer: Optimizer, config: TrainConfig, device: str
    ) -> None:
        groups = [{**group, "params": list(group["params"])} for group in optimizer.param_groups]
        super().__init__(groups, {})
        if device == "cpu":
            # DeepSpeed would take a GPU where the machine has one.
            os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed

        self.engine, self._zero, _, _ = deepspeed.initialize(
            model=nn.ModuleList(networks),
            optimizer=optimizer,
            config=_settings(config),
            dist_init_required=False,
        )
        self._start_state(step=0.0)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add a pass's gradients; `last`: the step's last pass."""
        self.engine.set_gradient_accumulation_boundary(last)
        # As the engine does in a forward of its own: from here on the passes count.
        self._zero.clear_backward_seen_flag()
        self.engine.backward(loss)

    def update(self) -> Tensor:
        """Clip and make the step, unless the gradient's norm is not finite; that norm."""
        for group, inner in zip(self.param_groups, self._zero.optimizer.param_groups, strict=True):
            inner["lr"] = group["lr"]
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return torch.as_tensor(math.inf if norm is None else norm)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing: `update` has done it."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: DeepSpeed drops gradients that it has used."""

    def state_dict(self) -> dict[str, Any]:
        """Of whole tensors in the main process, empty in the others; all call this together."""
        from deepspeed.utils import safe_get_full_optimizer_state

        step = next(iter(self._zero.optimizer.state.values()))["step"].cpu()
        main = torch.distributed.get_rank() == 0
        state: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(self._parameters()):
            values = {"step": step.clone()}
            for name in _MOMENTS:
                moment = safe_get_full_optimizer_state(parameter, name)
                values[name] = moment.cpu() if main else torch.empty(0)
            state[index] = values
        return {"state": state, "param_groups": self._numbered_groups()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take this process's part of whole tensors; settings stay those of now."""
        state = state_dict["state"]
        if not state:
            return
        self._start_state(max(float(values["step"]) for values in state.values()))
        for index, parameter in enumerate(self._parameters()):
            for name in _MOMENTS if index in state else ():
                shape = getattr(parameter, "ds_shape", parameter.shape)
                value = state[index][name]
                if value.shape != shape:
                    raise ValueError(f"a tensor of {tuple(value.shape)} for {tuple(shape)}")
                self._set_moment(parameter, name, value)

    def _start_state(self, step: float) -> None:
        """As AdamW begins at its first step, which is when DeepSpeed looks for the first group's."""
        for flat, fused in self._flat_parts():
            self._zero.optimizer.state[flat] = {
                "step": torch.tensor(step, device=flat.device if fused else "cpu"),
                **{name: torch.zeros_like(flat) for name in _MOMENTS},
            }
        if not self._split_weights():
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()

    def _set_moment(self, parameter: Tensor, name: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if not self._split_weights():
            safe_set_full_optimizer_state(parameter, value.to(parameter.device), name)
            return
        part: Tensor = parameter.ds_tensor  # type: ignore[attr-defined]
        # The last process's part is filled up with zeros.
        rank, flat = torch.distributed.get_rank(), value.flatten()
        own = torch.zeros(part.numel(), dtype=flat.dtype)
        piece = flat[rank * part.numel() : (rank + 1) * part.numel()]
        own[: piece.numel()] = piece
        safe_set_local_optimizer_state(parameter, own.to(part.device), name)

    def _flat_parts(self) -> list[tuple[Tensor, bool]]:
        """This process's part of the weights, as the inner optimizer has them, and whether its group
        is of a fused optimizer."""
        zero, groups = self._zero, self.param_groups
        if not self._split_weights():
            flats, owners = zero.single_partition_of_fp32_groups, list(range(len(groups)))
        else:
            flats = zero.fp32_partitioned_groups_flat
            owners = [zero.sub_group_to_group_id[index] for index in range(len(flats))]
        return [
            (flat, bool(groups[owner].get("fused")))
            for flat, owner in zip(flats, owners, strict=True)
        ]

    def _split_weights(self) -> bool:
        return hasattr(self._zero, "fp32_partitioned_groups_flat")

    def _parameters(self) -> Iterable[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    def _numbered_groups(self) -> list[dict[str, Any]]:
        groups, first = [], 0
        for group in self.param_groups:
            numbers = list(range(first, first + len(group["params"])))
            groups.append({**group, "params": numbers})
            first += len(numbers)
        return groups


def gathered_states(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    """Whole weights of networks in main memory of the main process, empty tensors in the others; all
    call this together."""
    main = torch.distributed.get_rank() == 0
    states: dict[str, dict[str, Tensor]] = {}
    for name, network in networks.items():
        tensors = network.state_dict(keep_vars=True)
        state = states[name] = {}
        for key, tensor in tensors.items():
            with gathered([tensor]):
                state[key] = tensor.detach().cpu().clone() if main else torch.empty(0)
    return states


def _settings(config: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's own configuration."""
    return {
        # Of its reports only; how many clips a step has is ours to say.
        "train_micro_batch_size_per_gpu": config.data.batch_size,
        "gradient_accumulation_steps": config.optimizer.gradient_accumulation_steps,
        "gradient_clipping": config.optimizer.max_grad_norm,
        "zero_optimization": {
            "stage": zero_stage(),
            "reduce_bucket_size": _BUCKET,
            "allgather_bucket_size": _BUCKET,
            "stage3_prefetch_bucket_size": _BUCKET,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**62,
    }

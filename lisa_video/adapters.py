"""Low-rank adapters (LoRA) in a frozen main network, through peft and diffusers.

Source: Hu et al., "LoRA", arXiv:2106.09685. Files have diffusers' own layout: the backbone's
pipeline of diffusers loads them by `load_lora_weights`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from diffusers import DiffusionPipeline, ModelMixin
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE as WEIGHTS_FILE
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lisa_video.errors import UserError
from lisa_video.loading import LOADING_ERRORS, first_line, libraries_silent
from lisa_video.name_patterns import matched

ADAPTER = "default"
ADAPTABLE = (nn.Linear, nn.Conv2d, nn.Conv3d)


def add_lora(network: ModelMixin, rank: int, alpha: int, targets: Sequence[str]) -> None:
    """Put adapters, float32 and trainable, into the layers that the patterns `targets` stand for.

    They change nothing yet: one of their two matrices is 0, the other is drawn from torch's global
    CPU generator. Raises UserError where a pattern stands for no layer, and without peft.
    """
    _check_peft()
    import peft

    layers = [name for name, module in network.named_modules() if isinstance(module, ADAPTABLE)]
    wanted = {name for target in targets for name in matched(target, layers, "lora.targets")}
    chosen = [name for name in layers if name in wanted]
    network.add_adapter(peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen), ADAPTER)
    for parameter in lora_parameters(network).values():
        # Beside a half-precision layer they come in its dtype, too coarse to train in.
        parameter.data = parameter.data.float()


def remove_lora(network: ModelMixin) -> None:
    """Take the adapters out again, where there are any."""
    if has_lora(network):
        network.unload_lora()


def has_lora(network: ModelMixin) -> bool:
    """Whether a network has adapters, in use or not."""
    return bool(getattr(network, "peft_config", None))


@contextmanager
def without_lora(network: ModelMixin) -> Iterator[None]:
    """Let a network be what it is without its adapters, bit for bit. Not to be nested."""
    if not has_lora(network):
        yield
        return
    network.disable_adapters()
    try:
        yield
    finally:
        network.enable_adapters()


def lora_parameters(network: ModelMixin) -> dict[str, nn.Parameter]:
    """Weights of the adapters by name: that of the layer, then lora_A.weight or lora_B.weight."""
    if not has_lora(network):
        return {}
    return {
        name.replace(f".{ADAPTER}.", "."): parameter
        for name, parameter in network.named_parameters()
        if _of_adapter(name)
    }


def adapted_layers(network: ModelMixin) -> list[str]:
    """Names of the layers that have an adapter, in the network's order."""
    return list(dict.fromkeys(name.rpartition(".lora_")[0] for name in lora_parameters(network)))


def freeze(network: nn.Module) -> None:
    """Eval mode, and no gradient for the network's own weights; its adapters stay as they are."""
    network.eval()
    for name, parameter in network.named_parameters():
        if not _of_adapter(name):
            parameter.requires_grad_(False)


def own_weights(network: ModelMixin) -> dict[str, Tensor]:
    """The state dict that a network has without its adapters."""
    return {
        name.replace(".base_layer.", "."): weights
        for name, weights in network.state_dict().items()
        if not _of_adapter(name)
    }


def save_lora(
    network: ModelMixin,
    weights: Mapping[str, Tensor],
    folder: Path,
    pipeline_class: type[DiffusionPipeline],
    prefix: str,
) -> None:
    """Write adapters of `network`, by the names of `lora_parameters`, into a folder.

    `prefix` is the network's name in `pipeline_class`, the pipeline of diffusers that can load them.
    """
    settings = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in network.peft_config[ADAPTER].to_dict().items()
    }
    pipeline_class.save_lora_weights(
        folder,
        **{
            f"{prefix}_lora_layers": {name: value.detach() for name, value in weights.items()},
            f"{prefix}_lora_adapter_metadata": settings,
        },
    )


def load_lora(network: ModelMixin, path: Path, prefix: str) -> None:
    """Put adapters into a network, frozen: those that `save_lora` wrote into the folder `path`.

    Raises UserError where there are none, or those of another network, and without peft.
    """
    _check_peft()
    saved = read_lora(path, prefix)
    try:
        with libraries_silent():
            network.load_lora_adapter(
                path,
                prefix=prefix,
                adapter_name=ADAPTER,
                weight_name=WEIGHTS_FILE,
                use_safetensors=True,
                local_files_only=True,
            )
    except LOADING_ERRORS as error:
        raise UserError(f"{path}: adapters that do not fit: {first_line(error)}") from None
    if saved.keys() != lora_parameters(network).keys():
        raise UserError(f"{path}: these adapters are of another main network")
    network.requires_grad_(False)


def read_lora(path: Path, prefix: str) -> dict[str, Tensor]:
    """Weights of the adapters in a folder, by the names of `lora_parameters`.

    Raises UserError where there are none of a network that is called `prefix`.
    """
    file = path / WEIGHTS_FILE
    try:
        with safe_open(file, framework="pt") as stored:
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: not readable adapters: {first_line(error)}") from None
    start = f"{prefix}."
    if not weights or not all(name.startswith(start) for name in weights):
        raise UserError(f"{file}: holds other weights than adapters of a {prefix}")
    return {name.removeprefix(start): value for name, value in weights.items()}


def _of_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _check_peft() -> None:
    if find_spec("peft") is None:
        raise UserError("lora: needs peft; pip install 'lisa_video[lora]'")

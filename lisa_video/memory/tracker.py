"""The memory of tensors as operations make and drop them, exact to the byte.

What a kernel allocates and frees inside itself is not seen, nor are tensors of which this mode has
not seen an operation.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class MemoryTracker(TorchDispatchMode):
    """Counts the bytes of all storages that operations make while it is entered.

    Views and in-place results share a storage and count once. Works on real, meta and fake tensors
    alike. `gradients` counts, apart, the gradients of the parameters given to `watch`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, int] = {}
        self._accumulated: set[int] = set()
        self.held = 0
        """Bytes now."""
        self.gradients = 0
        """Bytes of `held` that are gradients of watched parameters."""
        self.peak = 0
        """Most bytes at once since the last `start`."""
        self.activations = 0
        """The same without gradients."""

    def start(self) -> None:
        """Forget earlier peaks."""
        self.peak = self.held
        self.activations = self.held - self.gradients

    def ignore(self, *modules: nn.Module | None) -> None:
        """Count weights and buffers of these modules as nothing."""
        for module in modules:
            if module is not None:
                for tensor in [*module.parameters(), *module.buffers()]:
                    self._storages[tensor.untyped_storage()._cdata] = 0

    def watch(self, parameters: Iterable[nn.Parameter]) -> None:
        """Tell the gradients of these parameters apart, each from its first backward pass on."""
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._note_gradient)

    def _note_gradient(self, parameter: Tensor) -> None:
        if id(parameter) not in self._accumulated and parameter.grad is not None:
            self._accumulated.add(id(parameter))
            self.gradients += parameter.grad.untyped_storage().nbytes()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        results = function(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._note, results)
        return results

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = storage.nbytes()
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            self.activations = max(self.activations, self.held - self.gradients)
            weakref.finalize(storage, self._drop, key)
        return tensor

    def _drop(self, key: int) -> None:
        self.held -= self._storages.pop(key)


def module_bytes(*modules: nn.Module | None) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    storages = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
        for module in modules
        if module is not None
        for tensor in [*module.parameters(), *module.buffers()]
    }
    return sum(storages.values())

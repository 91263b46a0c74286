"""Finds the tensors that represent a model's parameters during a forward pass.

For a model that is not sharded, those are the parameters. If the parameters are sharded over
several ranks (FSDP2), each module gathers its own for the duration of its call. The gathered
tensors are different objects, with their own nodes in the autograd graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from fslr.errors import AttachError


def is_shard(tensor: Tensor) -> bool:
    """Return whether a tensor is sharded over several ranks."""
    return hasattr(tensor, "device_mesh")


def reshard(model: nn.Module) -> None:
    """Free gathered parameters, so that the next call gathers the current values of the shards.

    Without this, the outermost module keeps its gathered parameters after a forward pass that is
    not followed by a backward pass.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def refuse_foreign_shards(model: nn.Module) -> None:
    """Refuse a model with sharded parameters that FSDP2 does not gather.

    Only gathered parameters are followed. Others would appear to have a rate of zero.

    Args:
        model: The model inside all wrappers, with no parameters gathered.

    Raises:
        AttachError: The model has such parameters, for example those of tensor parallelism.
    """
    gathered = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, FSDPModule)
        for parameter in module.parameters()
        if _is_sharded_once(parameter)
    }
    foreign = [
        name
        for name, parameter in model.named_parameters()
        if is_shard(parameter) and id(parameter) not in gathered
    ]
    if foreign:
        raise AttachError(
            f"{len(foreign)} parameter(s) are sharded, but not by fully_shard, first "
            f"{foreign[0]!r}, and cannot be measured (tensor parallelism, for example); shard the "
            "model only with fully_shard"
        )


def _is_sharded_once(parameter: Tensor) -> bool:
    """Return whether a tensor is sharded along the last dimension of its mesh only."""
    *others, last = getattr(parameter, "placements", (None,))
    return last is not None and last.is_shard() and all(p.is_replicate() for p in others)


class ParameterFinder:
    """Finds the tensors that represent given parameters during a forward pass.

    Args:
        model: The model inside all wrappers, with no parameters gathered.
        parameters: The parameters, in the order of their indices.
    """

    def __init__(self, model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
        self._model = model
        self._plain: dict[int, nn.Parameter] = {}
        self._sharded: dict[tuple[int, str], int] = {}  # index by id of the module and name in it
        index_of: dict[int, int] = {}
        for index, parameter in enumerate(parameters):
            if is_shard(parameter):
                index_of[id(parameter)] = index
            else:
                self._plain[index] = parameter
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) in index_of:
                    self._sharded[id(module), name] = index_of[id(parameter)]

    @contextmanager
    def followed(self, follow: Callable[[int, Tensor], None]) -> Iterator[dict[int, Tensor]]:
        """Report the tensors that represent the parameters in the forward pass made inside.

        Args:
            follow: Called with a parameter's index and each tensor that represents it.

        Yields:
            The most recent such tensor by index; filled while the model runs.
        """
        leaves: dict[int, Tensor] = {}

        def report(index: int, tensor: Tensor) -> None:
            leaves[index] = tensor
            follow(index, tensor)

        def report_gathered(module: nn.Module, _args: Any) -> None:
            # All submodules: a module may use the parameter of a submodule that it never calls.
            for part in module.modules():
                for name, parameter in part.named_parameters(recurse=False):
                    index = self._sharded.get((id(part), name))
                    if index is not None and not is_shard(parameter):
                        report(index, parameter)

        for index, parameter in self._plain.items():
            report(index, parameter)
        modules = list(self._model.modules()) if self._sharded else []
        handles = [module.register_forward_pre_hook(report_gathered) for module in modules]
        try:
            yield leaves
        finally:
            for handle in handles:
                handle.remove()

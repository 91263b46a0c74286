"""Finds the tensors that stand for a model's parameters during a forward pass.

Of a plain model those are the parameters. Where parameters lie in shards on several ranks (FSDP2),
each module gathers its own for the time of its call; the gathered tensors are other objects, with
a place of their own in the autograd graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from fslr.errors import AttachError


def is_shard(tensor: Tensor) -> bool:
    """Return whether a tensor lies in shards on several ranks."""
    return hasattr(tensor, "device_mesh")


def reshard(model: nn.Module) -> None:
    """Let go of gathered parameters, so that the next call gathers what the shards hold then.

    The outermost module keeps its own after a forward pass that no backward pass follows.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def refuse_foreign_shards(model: nn.Module) -> None:
    """Refuse a model with sharded parameters that no module gathers whole for its call.

    Only gathered parameters are followed: others would seem to move nothing.

    Args:
        model: The model inside all wrappers, nothing gathered.

    Raises:
        AttachError: There are such parameters, of tensor parallelism for example.
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
            f"{len(foreign)} parameter(s) are sharded otherwise than by fully_shard, first "
            f"{foreign[0]!r}, and cannot be measured (tensor parallelism, for example); shard the "
            "model with fully_shard alone"
        )


def _is_sharded_once(parameter: Tensor) -> bool:
    """Return whether a tensor is cut along one dimension of its mesh, and copied along others."""
    *copied, cut = getattr(parameter, "placements", (None,))
    return cut is not None and cut.is_shard() and all(other.is_replicate() for other in copied)


class ParameterPlaces:
    """Where in a model its parameters are, also while others stand for them.

    Args:
        model: The model inside all wrappers, nothing gathered.
        parameters: The parameters by index.
    """

    def __init__(self, model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
        self._model = model
        self._plain: dict[int, nn.Parameter] = {}
        self._sharded: dict[tuple[int, str], int] = {}  # by module and the name in it
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
        """Tell which tensors stand for the parameters in the forward pass made inside.

        Args:
            follow: Called with a parameter's index and each tensor that stands for it.

        Yields:
            The newest such tensor by index; filled while the model is called.
        """
        leaves: dict[int, Tensor] = {}

        def stand_for(index: int, tensor: Tensor) -> None:
            leaves[index] = tensor
            follow(index, tensor)

        def gathered(module: nn.Module, _args: Any) -> None:
            # All below it: a module may use a parameter of another that it never calls.
            for part in module.modules():
                for name, parameter in part.named_parameters(recurse=False):
                    index = self._sharded.get((id(part), name))
                    if index is not None and not is_shard(parameter):
                        stand_for(index, parameter)

        for index, parameter in self._plain.items():
            stand_for(index, parameter)
        modules = list(self._model.modules()) if self._sharded else []
        handles = [module.register_forward_pre_hook(gathered) for module in modules]
        try:
            yield leaves
        finally:
            for handle in handles:
                handle.remove()

"""Snapshots of the weights before a step, and the step as seen from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fslr.torch.model.isolation import swapped_weights
from fslr.torch.model.sharding import is_shard


class Snapshot:
    """A copy of parameters, on their devices or in host memory.

    A copy on the device takes as much memory as the parameters. A copy in host memory takes the
    size of one parameter at a time on the device, and transfers all parameters in both directions.

    Args:
        parameters: The parameters to copy.
        on_host: Whether the copy is in host memory.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, on_host: bool = False) -> None:
        self._parameters = list(parameters)
        self._on_host = on_host
        # Shards are gathered from a shared storage, which must be written to and not replaced.
        self._in_place = on_host or any(is_shard(parameter) for parameter in parameters)
        self._before = self._copies()

    def _copies(self) -> list[Tensor]:
        device = "cpu" if self._on_host else None
        return [p.detach().to(device=device, copy=True) for p in self._parameters]

    @contextmanager
    def restored(self) -> Iterator[StepView]:
        """Let the parameters hold the snapshot, and yield a view of the step since then.

        Afterwards the parameters are bit-identical to before, even after an exception.
        """
        if not self._in_place:
            after = [p.data for p in self._parameters]
            with swapped_weights(dict(zip(self._parameters, self._before, strict=True))):
                yield StepView(self._parameters, after, self._before, in_place=False)
            return
        after = self._copies()
        try:
            _fill(self._parameters, self._before)
            yield StepView(self._parameters, after, self._before, in_place=True)
        finally:
            _fill(self._parameters, after)

    @torch.no_grad()
    def rescale(self, factors: Sequence[float]) -> None:
        """Multiply the step since the snapshot by a factor per parameter."""
        for parameter, before, factor in zip(self._parameters, self._before, factors, strict=True):
            if factor != 1.0:
                current = _local(parameter)
                current.copy_(torch.lerp(_local(before).to(current.device), current, factor))


class StepView:
    """A step, while the parameters hold the weights before it."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        after: list[Tensor],
        before: list[Tensor],
        *,
        in_place: bool,
    ) -> None:
        self._parameters = parameters
        self._after = after
        self._before = before
        self._in_place = in_place

    def change(self, index: int) -> Tensor:
        """Return the change of a parameter by the step."""
        before = self._parameters[index].data
        change = self._after[index].to(before.device) - before
        # The change of a sharded parameter is gathered from all ranks, one parameter at a time.
        return change.full_tensor() if isinstance(change, DTensor) else change

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the parameters hold the weights after the step inside the context."""
        if not self._in_place:
            with swapped_weights(dict(zip(self._parameters, self._after, strict=True))):
                yield
            return
        try:
            _fill(self._parameters, self._after)
            yield
        finally:
            _fill(self._parameters, self._before)


def _local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor, and any other tensor unchanged."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _fill(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        _local(parameter.data).copy_(_local(value))

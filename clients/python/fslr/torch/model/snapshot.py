"""The weights from before a step, and the model at them for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fslr.torch.model.isolation import weights_swapped
from fslr.torch.model.sharding import is_shard


class Snapshot:
    """Keeps a copy of parameters, beside them or in the host's memory.

    On the device it costs the parameters' size once more there. On the host it costs nothing on the
    device but one parameter's size at a time, and a transfer of all parameters each way.

    Args:
        parameters: What to keep.
        on_host: Whether to keep it in the host's memory.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, on_host: bool = False) -> None:
        self._parameters = list(parameters)
        self._on_host = on_host
        # A shard is gathered from a storage that others hold too: filled, not exchanged.
        self._fills = on_host or any(is_shard(parameter) for parameter in parameters)
        self._before = self._copies()

    def _copies(self) -> list[Tensor]:
        device = "cpu" if self._on_host else None
        return [p.detach().to(device=device, copy=True) for p in self._parameters]

    @contextmanager
    def restored(self) -> Iterator[StepView]:
        """Let the parameters hold what was kept; inside, the step since then can be looked at.

        What the parameters hold now is back afterwards, bit for bit, whatever happens inside.
        """
        if not self._fills:
            after = [p.data for p in self._parameters]
            with weights_swapped(dict(zip(self._parameters, self._before, strict=True))):
                yield StepView(self._parameters, after, self._before, fills=False)
            return
        after = self._copies()
        try:
            _fill(self._parameters, self._before)
            yield StepView(self._parameters, after, self._before, fills=True)
        finally:
            _fill(self._parameters, after)

    @torch.no_grad()
    def rescale(self, factors: Sequence[float]) -> None:
        """Turn the step since the snapshot into ``factor`` times itself, parameter by parameter."""
        for parameter, before, factor in zip(self._parameters, self._before, factors, strict=True):
            if factor != 1.0:
                now = _local(parameter)
                now.copy_(torch.lerp(_local(before).to(now.device), now, factor))


class StepView:
    """A step, looked at from the weights before it, which the parameters hold."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        after: list[Tensor],
        before: list[Tensor],
        *,
        fills: bool,
    ) -> None:
        self._parameters = parameters
        self._after = after
        self._before = before
        self._fills = fills

    def change(self, index: int) -> Tensor:
        """Return by what the step changed a parameter."""
        before = self._parameters[index].data
        change = self._after[index].to(before.device) - before
        # Of a shard the whole change is gathered from all ranks, one parameter at a time.
        return change.full_tensor() if isinstance(change, DTensor) else change

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the parameters hold the weights after the step."""
        if not self._fills:
            with weights_swapped(dict(zip(self._parameters, self._after, strict=True))):
                yield
            return
        try:
            _fill(self._parameters, self._after)
            yield
        finally:
            _fill(self._parameters, self._before)


def _local(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor, and any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _fill(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        _local(parameter.data).copy_(_local(value))

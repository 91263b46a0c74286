"""Snapshots of the weights before a step, and the step as seen from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fslr.torch.model.isolation import restore_all, swapped_weights
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
    def restored(self, uncounted_decays: Sequence[float] = ()) -> Iterator[StepView]:
        """Let the parameters hold the snapshot, and yield a view of the step since then.

        Afterwards the parameters are bit-identical to before, even after an exception.

        Args:
            uncounted_decays: Which part of each parameter is added to its change, because it is
                weight decay that is not looked at. Default: none.
        """
        decays = list(uncounted_decays) or [0.0] * len(self._parameters)
        if not self._in_place:
            after = [p.data for p in self._parameters]
            with swapped_weights(dict(zip(self._parameters, self._before, strict=True))):
                yield StepView(self._parameters, after, self._before, decays, in_place=False)
            return
        after = self._copies()
        try:
            for parameter, before in zip(self._parameters, self._before, strict=True):
                _fill(parameter, before)
            yield StepView(self._parameters, after, self._before, decays, in_place=True)
        finally:
            restore_all(zip(self._parameters, after, strict=True), _fill)

    @torch.no_grad()
    def rescale(self, factors: Sequence[float], decays: Sequence[float]) -> None:
        """Multiply the step since the snapshot by a factor per parameter, except its weight decay.

        Args:
            factors: One for each parameter.
            decays: Which part of each parameter the step took away as weight decay that is not to
                be multiplied.
        """
        for parameter, kept, factor, decay in zip(
            self._parameters, self._before, factors, decays, strict=True
        ):
            if factor == 1.0:
                continue
            current = _local(parameter)
            before = _local(kept).to(current.device)
            rescaled = torch.lerp(before, current, factor)
            if decay:
                # The decay was multiplied as well: put back what that added or took.
                _add_part(rescaled, before, (factor - 1) * decay, current != before)
            current.copy_(rescaled)


class StepView:
    """A step, while the parameters hold the weights before it.

    Args:
        parameters: The parameters.
        after: Their values after the step.
        before: Their values before it.
        uncounted_decays: Which part of each parameter is added to its change, because it is weight
            decay that is not looked at.
        in_place: Whether values are written into the parameters.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        after: list[Tensor],
        before: list[Tensor],
        uncounted_decays: list[float],
        *,
        in_place: bool,
    ) -> None:
        self._parameters = parameters
        self._after = after
        self._before = before
        self._decays = uncounted_decays
        self._in_place = in_place

    def change(self, index: int) -> Tensor:
        """Return the change of a parameter by the step."""
        change = self._change(index)
        # The change of a sharded parameter is gathered from all ranks, one parameter at a time.
        return change.full_tensor() if isinstance(change, DTensor) else change

    def _change(self, index: int) -> Tensor:
        """Return the change of a parameter, or of this rank's part of a sharded one."""
        before = self._parameters[index].data
        change = self._after[index].to(before.device) - before
        decay = self._decays[index]
        if decay:
            part = _local(change)
            _add_part(part, _local(before), decay, part != 0)
        return change

    def sums_of_squares(self) -> Tensor:
        """Return sums over the entries that this rank has of each parameter.

        Returns:
            Float64 of shape [3, parameters] on the CPU: the sum of squares of the weights before
            the step, that of the changes, and the number of entries.
        """
        norms: list[Tensor] = []
        for index, parameter in enumerate(self._parameters):
            norms += [_norm(_local(parameter.data)), _norm(_local(self._change(index)))]
        weights, changes = _on_host(norms).square().view(-1, 2).unbind(1)
        sizes = [float(_local(parameter.data).numel()) for parameter in self._parameters]
        counts = torch.tensor(sizes, dtype=torch.float64, device="cpu")
        return torch.stack([weights, changes, counts])

    def _counted(self, index: int) -> Tensor:
        """Return a parameter's values after the step, without weight decay that is left out."""
        after, decay = _local(self._after[index]), self._decays[index]
        if not decay:
            return after
        before = _local(self._before[index])
        counted = after.clone()
        _add_part(counted, before, decay, after != before)
        return counted

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the parameters hold the weights after the step inside the context."""
        if not self._in_place:
            after = list(map(self._counted, range(len(self._parameters))))
            with swapped_weights(dict(zip(self._parameters, after, strict=True))):
                yield
            return
        try:
            for index, parameter in enumerate(self._parameters):
                _local(parameter.data).copy_(self._counted(index))
            yield
        finally:
            restore_all(zip(self._parameters, self._before, strict=True), _fill)


def _add_part(target: Tensor, weights: Tensor, part: float, moved: Tensor) -> None:
    """Add a part of the weights, except where a step moved nothing.

    A parameter without a gradient, and a step that was skipped, have no weight decay either.
    """
    target.add_(weights * moved, alpha=part)


def _local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor, and any other tensor unchanged."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _norm(tensor: Tensor) -> Tensor:
    """Return the norm of a tensor as a scalar on its device, in float64 where there is one."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    dtype = torch.float32 if tensor.device.type == "mps" else torch.float64
    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=dtype)
    return norm


def _on_host(scalars: list[Tensor]) -> Tensor:
    """Return scalars as one float64 tensor on the CPU, with one transfer for each device."""
    found = torch.empty(len(scalars), dtype=torch.float64, device="cpu")
    places: dict[torch.device, list[int]] = {}
    for place, scalar in enumerate(scalars):
        places.setdefault(scalar.device, []).append(place)
    for on_device in places.values():
        found[on_device] = torch.stack([scalars[i] for i in on_device]).to("cpu", torch.float64)
    return found


def _fill(parameter: nn.Parameter, value: Tensor) -> None:
    _local(parameter.data).copy_(_local(value))

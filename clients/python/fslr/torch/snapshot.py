"""The weights from before a step, and the model at them for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fslr.torch.isolation import weights_swapped


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
        self._before = self._copies()

    def _copies(self) -> list[Tensor]:
        device = "cpu" if self._on_host else None
        return [p.detach().to(device=device, copy=True) for p in self._parameters]

    @contextmanager
    def restored(self) -> Iterator[StepView]:
        """Let the parameters hold what was kept; inside, the step since then can be looked at.

        What the parameters hold now is back afterwards, bit for bit, whatever happens inside.
        """
        if not self._on_host:
            after = [p.data for p in self._parameters]
            with weights_swapped(dict(zip(self._parameters, self._before, strict=True))):
                yield StepView(self._parameters, after, on_host=False)
            return
        after = self._copies()
        try:
            _fill(self._parameters, self._before)
            yield StepView(self._parameters, after, on_host=True)
        finally:
            _fill(self._parameters, after)

    @torch.no_grad()
    def rescale(self, factors: Sequence[float]) -> None:
        """Turn the step since the snapshot into ``factor`` times itself, parameter by parameter."""
        for parameter, before, factor in zip(self._parameters, self._before, factors, strict=True):
            if factor != 1.0:
                parameter.copy_(torch.lerp(before.to(parameter.device), parameter, factor))


class StepView:
    """A step, looked at from the weights before it, which the parameters hold."""

    def __init__(
        self, parameters: list[nn.Parameter], after: list[Tensor], *, on_host: bool
    ) -> None:
        self._parameters = parameters
        self._after = after
        self._on_host = on_host

    def change(self, index: int) -> Tensor:
        """Return by what the step changed a parameter."""
        before = self._parameters[index].data
        return self._after[index].to(before.device) - before

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the parameters hold the weights after the step."""
        if not self._on_host:
            with weights_swapped(dict(zip(self._parameters, self._after, strict=True))):
                yield
            return
        before = [p.detach().to("cpu", copy=True) for p in self._parameters]
        try:
            _fill(self._parameters, self._after)
            yield
        finally:
            _fill(self._parameters, before)


def _fill(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data.copy_(value)

"""Watches how long steps take, and says once if splitting an optimizer's groups slows them."""

from __future__ import annotations

import inspect
import logging
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

_log = logging.getLogger("fslr")

_LOOKED_AT_STEP = 20
_LEAST_STEPS = 5
_TRIALS = 5
_WORTH_A_WORD = 0.05  # of a training step
_MANY_GROUPS = 64  # a model with fewer tensors, and steps so short, is a toy


def splitting_cost_s(optimizer: torch.optim.Optimizer, groups: int) -> float | None:
    """Return what a step of such an optimizer takes longer with a group for each tensor, seconds.

    It is tried out on an optimizer of the same kind with parameters of one element, on the same
    device, so that nothing but the handling of groups takes time.

    Args:
        optimizer: The optimizer; not touched.
        groups: Number of tensors that would have a group each.

    Returns:
        The difference, medians of a few steps each; None if no such optimizer can be built.
    """
    present = optimizer.param_groups
    accepted = inspect.signature(type(optimizer)).parameters
    options = {key: value for key, value in present[0].items() if key in accepted}
    options.pop("params", None)
    device = present[0]["params"][0].device

    def seconds(*, split: bool) -> float:
        parameters = [nn.Parameter(torch.zeros(1, 1, device=device)) for _ in range(groups)]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        given = [{"params": [p]} for p in parameters] if split else parameters
        trial = type(optimizer)(given, **options)
        taken: list[float] = []
        for _ in range(_TRIALS + 1):  # the first one makes the state
            begun = time.perf_counter()
            trial.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken[1:])

    try:
        return seconds(split=True) - seconds(split=False)
    except Exception:  # noqa: BLE001 - a user's own optimizer may want anything
        return None


class Pace:
    """Notes when steps begin, and looks once at what splitting costs.

    Args:
        optimizer: The optimizer.
        groups: Number of tensors with multipliers of their own.
        clock: Returns the time, seconds.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        groups: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._optimizer = optimizer
        self._groups = groups
        self._clock = clock
        self._periods_s: list[float] = []
        self._last: float | None = None
        self._done = groups < _MANY_GROUPS

    def note(self, *, undisturbed: bool) -> None:
        """Note that a step begins.

        Args:
            undisturbed: Whether the step before was an ordinary one, neither measured nor failed.
        """
        if self._done:
            return
        now = self._clock()
        if self._last is not None and undisturbed:
            self._periods_s.append(now - self._last)
        self._last = now
        if len(self._periods_s) >= _LOOKED_AT_STEP:
            self._done = True
            self._look()

    def _look(self) -> None:
        period_s = statistics.median(self._periods_s[_LEAST_STEPS:])
        cost_s = splitting_cost_s(self._optimizer, self._groups)
        if cost_s is not None and cost_s > _WORTH_A_WORD * period_s:
            _log.warning(
                "a learning rate for each of %d tensors costs %.0f%% of a training step (%.1f ms) "
                'with this optimizer; attach(..., scaling="update") is cheaper: it scales the '
                "update after the step, for one more copy of the weights in memory",
                self._groups,
                100 * cost_s / period_s,
                1000 * cost_s,
            )

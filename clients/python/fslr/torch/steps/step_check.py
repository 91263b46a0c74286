"""Checks during a training that scaled learning rates still scale the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fslr.torch.steps.optimizer_trial import try_out
from fslr.torch.steps.step_scaler import StepScaler
from fslr.training.events import Listeners, Warned

_CHANGE = 1.01  # ratio of a multiplier to the one at the latest check, from which on it counts


class StepCheck:
    """Tries optimizers out again after changes of the multipliers, and watches what steps read.

    An optimizer may begin to compute its own learning rates late, or a step may read other groups
    than those of the optimizer. Multipliers then act on its updates from that step on, and one line
    says so. Optimizers are tried out after the first, second, fourth, eighth ... change.

    Args:
        optimizers: Those to check, as their user passes them.
        scaler: Scales their steps.
        listeners: Receive the line.
        step: Returns the step under way.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: StepScaler,
        listeners: Listeners,
        step: Callable[[], int],
    ) -> None:
        self._optimizers = list(optimizers)
        self._scaler = scaler
        self._listeners = listeners
        self._step = step
        self._multipliers: list[float] = []
        self._changes = 0

    def multipliers_changed(self, multipliers: Sequence[float]) -> None:
        """Try the optimizers out, if the multipliers have changed often enough.

        Args:
            multipliers: Those of the step that begins.
        """
        if multipliers == self._multipliers:
            return
        pairs = zip(self._multipliers, multipliers, strict=False)
        if self._multipliers and all(max(a / b, b / a) < _CHANGE for a, b in pairs):
            return
        self._multipliers = list(multipliers)
        self._changes += 1
        if self._changes == 1 or self._changes & (self._changes - 1):
            return  # the start was checked already
        for optimizer in list(self._optimizers):
            trial = try_out(optimizer, is_training=True)
            if trial.was_possible and trial.learning_rates and not trial.updates:
                self.does_not_follow(optimizer, trial.learning_rates)

    def does_not_follow(self, optimizer: torch.optim.Optimizer, reason: str) -> None:
        """Let multipliers act on the updates of an optimizer from now on.

        Args:
            optimizer: The optimizer.
            reason: Why they do not act on its learning rates.
        """
        self._optimizers = [other for other in self._optimizers if other is not optimizer]
        of_recipe = self._scaler.has_settings(optimizer)
        self._scaler.scale_updates_of(optimizer)
        ends = (
            "; the recipe's factors on its other settings end, since its groups are not split"
            if of_recipe
            else ""
        )
        self._listeners.emit(
            Warned(
                self._step(),
                f"from now on multipliers act on the updates of {type(optimizer).__name__}, not on "
                f"its learning rates: {reason}{ends}",
            )
        )

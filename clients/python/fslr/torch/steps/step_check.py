"""Checks during a training that scaled learning rates still scale the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fslr.torch.steps.optimizer_trial import Trial, try_out
from fslr.torch.steps.step_scaler import StepScaler
from fslr.training.events import Listeners, Warned

_CHANGE = 1.01  # ratio of a multiplier to the one at the latest check, from which on it counts


class StepCheck:
    """Tries optimizers out again after changes of the multipliers, and watches what steps read.

    An optimizer may begin late to compute its own learning rates or to keep weights of its own, and
    a step may read other groups than those of the optimizer. Multipliers then act in the other way
    from that step on, or are 1 where neither way works, and one line says so. Optimizers are tried
    out after the first, second, fourth, eighth ... change.

    Args:
        optimizers: Those to check, as their user passes them.
        scaler: Scales their steps.
        listeners: Receive the line.
        step: Returns the step under way.
        leave_unscaled: Sets the multipliers of parameters, given by their places, to 1 for good.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: StepScaler,
        listeners: Listeners,
        step: Callable[[], int],
        leave_unscaled: Callable[[Sequence[int]], None],
    ) -> None:
        self._optimizers = list(optimizers)
        self._scaler = scaler
        self._listeners = listeners
        self._step = step
        self._leave_unscaled = leave_unscaled
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
            if trial.was_possible:
                self._act_on(optimizer, trial)

    def _act_on(self, optimizer: torch.optim.Optimizer, trial: Trial) -> None:
        """Let multipliers act in a different way if they cannot act as they do."""
        if not self._scaler.scales_updates_of(optimizer):
            can_turn = self._scaler.is_correctable(optimizer) and not trial.updates
            if trial.have_no_effect or (trial.learning_rates and can_turn):
                self.does_not_follow(optimizer, trial.learning_rates, trial.updates)
        elif trial.updates and trial.learning_rates:
            self._give_up(optimizer, trial.learning_rates, trial.updates)
        elif trial.updates:
            self._scaler.scale_learning_rates_of(optimizer)
            self._say(
                f"multipliers act on the learning rates of {type(optimizer).__name__}, not on its "
                f"updates: {trial.updates}"
            )

    def does_not_follow(
        self, optimizer: torch.optim.Optimizer, reason: str, why_not_updates: str = ""
    ) -> None:
        """Let multipliers act on the updates of an optimizer from now on, where that is possible.

        Args:
            optimizer: The optimizer.
            reason: Why they do not act on its learning rates.
            why_not_updates: Why they cannot act on its updates, if that is known by now.
        """
        if why_not_updates or not self._scaler.is_correctable(optimizer):
            self._give_up(optimizer, reason, why_not_updates or "it keeps weights of its own")
            return
        self._optimizers = [other for other in self._optimizers if other is not optimizer]
        ends = self._end_of_settings(optimizer)
        self._scaler.scale_updates_of(optimizer)
        self._say(
            f"multipliers act on the updates of {type(optimizer).__name__}, not on its learning "
            f"rates: {reason}{ends}"
        )

    def _give_up(self, optimizer: torch.optim.Optimizer, reason: str, why_not_updates: str) -> None:
        """Leave an optimizer to itself, so that the reported multipliers are those of its steps."""
        self._optimizers = [other for other in self._optimizers if other is not optimizer]
        ends = self._end_of_settings(optimizer)
        self._leave_unscaled(self._scaler.leave_unscaled(optimizer))
        self._say(
            f"the multipliers of {type(optimizer).__name__} are 1. They cannot act on its learning "
            f"rates: {reason}; nor on its updates: {why_not_updates}{ends}; use a different "
            "optimizer to get advice"
        )

    def _end_of_settings(self, optimizer: torch.optim.Optimizer) -> str:
        """Return what ends with the splitting of groups; empty: nothing."""
        if not self._scaler.has_settings(optimizer):
            return ""
        return "; the recipe's factors on its other settings end, since its groups are not split"

    def _say(self, what: str) -> None:
        self._listeners.emit(Warned(self._step(), f"from now on {what}"))

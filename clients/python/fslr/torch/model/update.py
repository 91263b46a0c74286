"""The step that is measured: each group's unit update, and the learning rates in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Update:
    """The effect of an optimizer step, relative to the weights before it.

    Attributes:
        unit_update: Returns the unit update of a group by the group's index: the change of the
            parameter divided by the learning rate, of the parameter's shape. Called once per use of
            the parameter, so that no second copy of all parameters is held.
        learning_rates: Learning rate of each group in the step, multiplier included. None: they are
            unknown, and no total rate is estimated.
        applied: Returns a context in which the model has the weights after the step. None: those
            weights are unknown, and no linearity error is estimated.
    """

    unit_update: Callable[[int], Tensor]
    learning_rates: Sequence[float] | None = None
    applied: Callable[[], AbstractContextManager[None]] | None = None

"""The step that is measured: each group's unit update, and the learning rates in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Update:
    """What an optimizer step did, seen from the weights before it.

    Attributes:
        of_group: Gives the unit update of a group by its index, of the parameter's shape, per
            learning rate. Called once per use of the parameter, so that no second copy of all
            parameters is ever held.
        learning_rates: Absolute learning rate of each group in the step, multiplier included.
            None: unknown, and no total rate can be told.
        applied: Makes a context in which the model has the weights after the step. None: they are
            not known, and no linearity error can be told.
    """

    of_group: Callable[[int], Tensor]
    learning_rates: Sequence[float] | None = None
    applied: Callable[[], AbstractContextManager[None]] | None = None

"""What a step cycle works with: a run, a meter and a scaler, of any framework."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from fslr.training.cadence import Cadence
from fslr.training.estimate import RateEstimate


class Run(Protocol):
    """What a step cycle reports to: an advised run, or a recording."""

    @property
    def cadence(self) -> Cadence:
        """When steps are measured."""
        ...

    @property
    def factors(self) -> list[float]:
        """The factors to apply to the learning rates."""
        ...

    @property
    def keeps_decay(self) -> bool:
        """Whether the weight decay of a step stays what the optimizer's settings say."""
        ...

    def begin_step(self, learning_rates: Callable[[], Sequence[float]]) -> None:
        """Decide whether the step that begins is measured.

        Args:
            learning_rates: Returns the scheduled learning rate of each group.
        """
        ...

    def measured(
        self, estimate: RateEstimate, learning_rates: Sequence[float], *, can_correct: bool = True
    ) -> list[float] | None:
        """Act on a measurement; return what the step's update is to be multiplied by, or None.

        Args:
            estimate: The measurement.
            learning_rates: The scheduled learning rate of each group.
            can_correct: Whether the update of the measured step can still be multiplied.
        """
        ...


class Meter(Protocol):
    """Measures a framework's steps."""

    def begin_step(self) -> None:
        """Keep the weights: the step that follows is measured or rescaled."""
        ...

    def wait(self) -> None:
        """Wait until the device has done what it was asked to, so that times are true."""
        ...

    @property
    def excludes_decay(self) -> bool:
        """Whether the update is measured without its weight decay."""
        ...

    def end_step(
        self, learning_rates: Sequence[float], uncounted_decays: Sequence[float]
    ) -> RateEstimate:
        """Measure the step; all ranks do so together.

        Args:
            learning_rates: Absolute learning rate of each group in the step, multiplier included.
            uncounted_decays: Which part of each group's weights from before the step is added to
                its update, because it is weight decay that is not to be measured.
        """
        ...

    def rescale_step(self, factors: Sequence[float], decays: Sequence[float]) -> None:
        """Multiply the step's update, group by group, except its weight decay.

        Args:
            factors: One for each group.
            decays: Which part of each group's weights from before the step it took away as weight
                decay that is not to be multiplied.
        """
        ...

    def fail_step(self, error: Exception) -> None:
        """Let :meth:`end_step` raise an error, once the other ranks know that there is one."""
        ...

    def forget_step(self) -> None:
        """Release what a measurement kept."""
        ...


class Scaler(Protocol):
    """Puts multipliers in force on a framework's optimizers."""

    def begin_step(self) -> None:
        """Forget what was stepped with before: a step of the training begins."""
        ...

    def learning_rates(self) -> list[float]:
        """Return the scheduled learning rate of each group at present."""
        ...

    def step_learning_rates(self) -> list[float]:
        """Return the scheduled learning rate that each group has stepped with.

        It is 0 for groups that have not stepped since :meth:`begin_step`.
        """
        ...

    def decays(self) -> list[float]:
        """Return which part of each group's weights a scheduled step takes away as weight decay.

        It is 0 where there is none, none that can be kept apart from the rest of the update, and
        for groups that have not stepped since :meth:`begin_step`.
        """
        ...

    def kept_decays(self) -> list[float]:
        """Return the same for steps whose weight decay is independent of multipliers."""
        ...

    def check(self, multipliers: Sequence[float]) -> None:
        """Find out whether learning rates can still be scaled, before a step is prepared.

        Otherwise :meth:`update_factors` differ from 1 from then on.

        Args:
            multipliers: Those of the step, one for each group.
        """
        ...

    def update_factors(
        self, multipliers: Sequence[float], members: Collection[int] | None = None
    ) -> list[float]:
        """Return what updates are to be multiplied by after a step: 1 where learning rates are.

        Args:
            multipliers: One for each group.
            members: The optimizers that have stepped; None: all.
        """
        ...

    @property
    def can_correct(self) -> bool:
        """Whether a step's update can be multiplied after the step, for an answer that came then.

        An optimizer that keeps weights of its own would undo it.
        """
        ...

    def scale(
        self, multipliers: Sequence[float], *, keeps_decay: bool, everything: bool = False
    ) -> None:
        """Scale the learning rates of the steps that follow, until the next call.

        Args:
            multipliers: One for each group, > 0.
            keeps_decay: Whether weight decay stays what the settings say, where that is possible.
            everything: Whether to scale learning rates where updates are usually scaled, too.
        """
        ...

    def is_scaled(self, multipliers: Sequence[float], *, keeps_decay: bool) -> bool:
        """Return whether the steps that follow are scaled like that already, and no update is.

        Args:
            multipliers: As for :meth:`scale`.
            keeps_decay: As for :meth:`scale`.
        """
        ...

    def restore(self) -> None:
        """Undo what a step that was scaled has left behind."""
        ...

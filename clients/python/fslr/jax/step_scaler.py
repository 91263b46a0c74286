"""Puts multipliers in force in an optimizer's state, and knows what steps were made with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import jax

from fslr.jax.advice_state import advice_states, decays_of, multipliers_of, with_multipliers
from fslr.jax.groups import ModelGroups
from fslr.jax.learning_rates import LearningRates

_WITH_WEIGHTS = frozenset({
    *("ScheduleFreeState", "LookaheadState", "MechanicState", "ProdigyState", "DoGState"),
    *("DoWGState", "COCOBState", "MomoState", "SAMState"),
})
"""Names of states of optax that contain weights."""


class StepScaler:
    """Scales the steps of an optimizer by the multipliers of its ``scale_by_advice``.

    Args:
        groups: The model's groups.
        learning_rates: The scheduled learning rates of the leaves.
        opt_state: The optimizer's state.

    Attributes:
        opt_state: The state: before a step the one to step with, after it the one that the step
            returned.
    """

    def __init__(self, groups: ModelGroups, learning_rates: LearningRates, opt_state: Any) -> None:
        self.opt_state = opt_state
        self._groups = groups
        self._learning_rates = learning_rates
        self._in_force: tuple[list[float], bool] | None = None
        self._can_correct = not keeps_weights(opt_state)

    @property
    def can_scale(self) -> bool:
        """Whether the optimizer has a ``scale_by_advice``."""
        return bool(advice_states(self.opt_state))

    def begin_step(self) -> None:
        """Do nothing: each step is made once."""

    def learning_rates(self) -> list[float]:
        """Return the scheduled learning rate of each group in the step that comes."""
        return self._of_groups(self._learning_rates.scheduled())

    def step_learning_rates(self) -> list[float]:
        """Return the scheduled learning rate that each group has stepped with."""
        return self._of_groups(self._learning_rates.stepped_with(self.opt_state))

    def _of_groups(self, of_leaves: Sequence[float]) -> list[float]:
        return [of_leaves[group.leaf] for group in self._groups]

    def decays(self) -> list[float]:
        """Return which part of each group's weights the scheduled step took as weight decay.

        It is 0 where ``scale_by_advice`` does not know the decay.
        """
        return self._groups.of_leaves(decays_of(self.opt_state))

    def kept_decays(self) -> list[float]:
        """Return the same: multipliers are all that changes the steps."""
        return self.decays()

    def check(self, multipliers: Sequence[float]) -> None:
        """Do nothing: multipliers always act in the optimizer."""

    def update_factors(
        self,
        multipliers: Sequence[float],
        members: Collection[int] | None = None,  # noqa: ARG002 - there is one optimizer
    ) -> list[float]:
        """Return what updates are to be multiplied by after a step: 1.

        Args:
            multipliers: One for each group.
            members: The optimizers that have stepped.
        """
        return [1.0] * len(multipliers)

    @property
    def can_correct(self) -> bool:
        """Whether a step's update can be multiplied after the step, for an answer that came then.

        An optimizer that keeps weights of its own would undo it.
        """
        return self._can_correct

    def scale(
        self,
        multipliers: Sequence[float],
        *,
        keeps_decay: bool,
        everything: bool = False,  # noqa: ARG002 - multipliers always act in the optimizer
    ) -> None:
        """Scale the steps that follow, until the next call.

        Args:
            multipliers: One for each group, > 0.
            keeps_decay: Whether weight decay stays what the settings say, where that is possible.
            everything: Without effect.
        """
        wanted = list(multipliers), keeps_decay
        if wanted == self._in_force:
            return
        if not self.can_scale and all(multiplier == 1 for multiplier in multipliers):
            return
        self.opt_state = with_multipliers(
            self.opt_state, self._groups.by_leaf(multipliers), keeps_decay=keeps_decay
        )
        self._in_force = wanted

    def is_scaled(self, multipliers: Sequence[float], *, keeps_decay: bool) -> bool:
        """Return whether the steps that follow are scaled like that already.

        Args:
            multipliers: As for :meth:`scale`.
            keeps_decay: As for :meth:`scale`.
        """
        return self._in_force == (list(multipliers), keeps_decay)

    def forget(self) -> None:
        """Forget what is in force: the optimizer's state may come from a checkpoint."""
        self._in_force = None

    def restore(self) -> None:
        """Do nothing: steps leave nothing behind."""

    def check_fit(self) -> None:
        """Check that the optimizer has a multiplier of the right shape for each leaf.

        Raises:
            AttachError: It does not.
        """
        multipliers_of(self.opt_state)
        with_multipliers(self.opt_state, self._groups.by_leaf([1.0] * len(self._groups)))


def keeps_weights(opt_state: Any) -> bool:
    """Return whether an optimizer computes with weights that it keeps in its state."""
    is_one = lambda node: type(node).__name__ in _WITH_WEIGHTS  # noqa: E731
    return any(map(is_one, jax.tree.leaves(opt_state, is_leaf=is_one)))

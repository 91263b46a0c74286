"""What a recipe multiplies an optimizer's settings by, group by group."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SettingFactors:
    """The factors on one group's settings; 1 changes nothing.

    Attributes:
        learning_rate: Factor of the recipe on the learning rate. It is in force through the
            multiplier, and only says here what the recipe's weight decay goes with.
        weight_decay: Factor on the coefficient of a decay that is multiplied by the learning rate,
            as in AdamW.
        epsilon: Factor on what an adaptive optimizer adds to its denominator.
        one_minus_beta1: Factor on one minus the decay of the first moment.
        one_minus_beta2: Factor on one minus the decay of the second moment.
    """

    learning_rate: float = 1.0
    weight_decay: float = 1.0
    epsilon: float = 1.0
    one_minus_beta1: float = 1.0
    one_minus_beta2: float = 1.0

    @property
    def decay_of_a_step(self) -> float:
        """Factor of the recipe on the part of the weights that a step takes away."""
        return self.learning_rate * self.weight_decay

    @property
    def changes_a_setting(self) -> bool:
        """Whether any setting but the learning rate changes."""
        return (
            self.weight_decay,
            self.epsilon,
            self.one_minus_beta1,
            self.one_minus_beta2,
        ) != (1.0, 1.0, 1.0, 1.0)

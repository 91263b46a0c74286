"""Parametrizations: how initial weights and settings of the optimizer depend on a model's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from benchmarks.transfer.settings import Setting


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors on one tensor of the big model, relative to the base.

    Attributes:
        init: Factor on the initial values that PyTorch gives it.
        learning_rate: Factor on its learning rate.
        epsilon: Factor on its epsilon.
        weight_decay: Factor on the coefficient of its decoupled weight decay, which is multiplied
            by the learning rate in force.
    """

    init: float = 1.0
    learning_rate: float = 1.0
    epsilon: float = 1.0
    weight_decay: float = 1.0


class Parametrization(Protocol):
    """A rule that prepares a model for training. Instances are pickled for worker processes."""

    @property
    def name(self) -> str:
        """Name in tables and JSON."""
        ...

    def prepare(self, model: nn.Module, setting: Setting, base: Setting) -> dict[str, Factors]:
        """Change a new model in place and return factors on the settings of the optimizer.

        Args:
            model: The model as the standard parametrization initializes it.
            setting: Its setting.
            base: The setting where the learning rate was tuned.

        Returns:
            Factors by parameter name; parameters without one have factor 1.
        """
        ...


@dataclass(frozen=True, slots=True)
class Standard:
    """PyTorch's own initial weights and one learning rate for all parameters."""

    name: str = "standard"

    def prepare(self, model: nn.Module, setting: Setting, base: Setting) -> dict[str, Factors]:  # noqa: ARG002
        """Leave the model unchanged.

        Args:
            model: The model.
            setting: Its setting.
            base: The setting where the learning rate was tuned.
        """
        return {}

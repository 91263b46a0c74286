"""Parametrisations: how initial weights and learning rates depend on the size of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from benchmarks.transfer.settings import Setting


class Parametrisation(Protocol):
    """A rule that prepares a model for training. Instances are pickled for worker processes."""

    @property
    def name(self) -> str:
        """Name in tables and JSON."""
        ...

    def prepare(self, model: nn.Module, setting: Setting, base: Setting) -> dict[str, float]:
        """Change a new model in place and return factors on the learning rate.

        Args:
            model: The model as the standard parametrisation initialises it.
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

    def prepare(self, model: nn.Module, setting: Setting, base: Setting) -> dict[str, float]:  # noqa: ARG002
        """Leave the model unchanged.

        Args:
            model: The model.
            setting: Its setting.
            base: The setting where the learning rate was tuned.
        """
        return {}

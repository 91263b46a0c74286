"""How a model's initial weights and learning rates go with its size: the place for alternatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from benchmarks.transfer.settings import Setting


class Parametrisation(Protocol):
    """A rule that prepares a model for training. Instances cross processes, so they pickle."""

    @property
    def name(self) -> str:
        """Short, for tables and JSON."""
        ...

    def prepare(self, model: nn.Module, setting: Setting, base: Setting) -> dict[str, float]:
        """Change a fresh model in place, and return factors on the learning rate.

        Args:
            model: The model as the standard parametrisation initialises it.
            setting: Its setting.
            base: The setting where the learning rate was tuned.

        Returns:
            Factors by parameter name; those left out have 1.
        """
        ...


@dataclass(frozen=True, slots=True)
class Standard:
    """PyTorch's own initial weights, one learning rate for all."""

    name: str = "standard"

    def prepare(self, model: nn.Module, setting: Setting, base: Setting) -> dict[str, float]:  # noqa: ARG002
        """Leave the model as it is.

        Args:
            model: The model.
            setting: Its setting.
            base: The setting where the learning rate was tuned.
        """
        return {}

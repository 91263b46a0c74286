"""The step that is measured, with the parameters as a list of leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jax import Array
from jax.extend.core import ClosedJaxpr

from fslr.jax.estimators.groups import LeafGroup, PyTree


@dataclass(frozen=True, slots=True)
class Step:
    """A step, and the function whose outputs it changes.

    Attributes:
        apply: Returns the outputs, with the examples on axis 0, for leaves and a batch.
        leaves: The leaves of the parameters before the step.
        updates: Their unit updates.
        batch: The batch.
        groups: The groups.
        function: The traced function of (leaves, batch).
    """

    apply: Callable[[Sequence[Any], PyTree], Array]
    leaves: list[Array]
    updates: list[Array]
    batch: PyTree
    groups: tuple[LeafGroup, ...]
    function: ClosedJaxpr

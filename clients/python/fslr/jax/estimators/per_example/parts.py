"""What is followed through a traced function: parts of the parameters, and where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jax import Array

UseKey = tuple[object, ...]
"""Identifies a place in the traced function, however often it is traced."""

INNER = "inner"  # in the keys of places inside of loops, branches and checkpoints


@dataclass(frozen=True, slots=True)
class Stack:
    """The layers of stacked leaves, each of which belongs to a group.

    Attributes:
        groups: The group of each layer; -1: none.
        axis: The axis that counts the layers.
    """

    groups: tuple[int, ...]
    axis: int


@dataclass(frozen=True, slots=True)
class Layer:
    """The layer of stacked leaves that one iteration of a scan gets.

    Attributes:
        groups: The group of each layer of the stack; -1: none.
    """

    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """A scan in the traced function.

    Attributes:
        place: Its place.
        length: Number of iterations.
    """

    place: UseKey
    length: int

    def has(self, use: UseKey) -> bool:
        """Return whether a place is inside of the loop."""
        inside = (*self.place, INNER)
        return use[: len(inside)] == inside


Part = int | Stack | Layer
"""A group, the layers of stacked leaves, or one of these layers inside of a loop over them."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A value in the traced function.

    Attributes:
        value: The value.
        changes: Its first-order changes by parts of the parameters.
        is_data: Whether it depends on the batch.
    """

    value: Any
    changes: Mapping[Part, Array] = field(default_factory=dict)
    is_data: bool = False


State = dict[object, Array]
"""What a tap keeps; it passes through loops and branches."""

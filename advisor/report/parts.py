"""Parts of a model, each of which stands for several groups: roles, blocks, or single groups."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from advisor.policy import Layout
from advisor.policy.arrays import Floats

_LAST_SEGMENT = re.compile(r"[./][^./]*$")


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A division of a layout's groups.

    Attributes:
        names: The parts, in the order of their first groups.
        indices: The part of each group, shape [groups].
    """

    names: tuple[str, ...]
    indices: npt.NDArray[np.intp]

    @property
    def group_counts(self) -> tuple[int, ...]:
        """Number of groups of each part."""
        return tuple(np.bincount(self.indices, minlength=len(self.names)).tolist())

    def sums(self, values: Floats) -> Floats:
        """Return the sum of a value over the groups of each part, shape [parts]."""
        found: Floats = np.bincount(self.indices, values, len(self.names)).astype(np.float64)
        return found

    def geometric_means(self, values: Floats) -> Floats:
        """Return the geometric mean over the groups of each part, shape [parts].

        Args:
            values: One for each group, at least 0. A part with a 0 has the mean 0.
        """
        with np.errstate(divide="ignore"):
            logarithms = np.log(values)
        counts = np.bincount(self.indices, minlength=len(self.names))
        means: Floats = np.exp(self.sums(logarithms) / counts)
        return means

    def members(self, name: str) -> list[int]:
        """Return the indices of the groups of a part; empty if there is no such part."""
        if name not in self.names:
            return []
        found: list[int] = np.flatnonzero(self.indices == self.names.index(name)).tolist()
        return found


def by_role(layout: Layout) -> Parts:
    """Return the roles of a layout: a tensor of all blocks is one part."""
    return _parts(group.role for group in layout.groups)


def by_block(layout: Layout) -> Parts:
    """Return the blocks of a layout, such as ``blocks.3``, and the modules outside of blocks.

    In a model with several indices, such as stages of blocks or blocks of experts, the outermost
    one counts.
    """
    return _parts(_block(layout, i) for i in range(len(layout)))


def by_group(layout: Layout) -> Parts:
    """Return the groups of a layout, each a part of its own."""
    return _parts(group.name for group in layout.groups)


def _block(layout: Layout, i: int) -> str:
    """Return the name of the block that a group belongs to."""
    group, place = layout.groups[i], layout.places[i]
    start, star, _ = group.role.partition("*")
    if star:
        return f"{start}{place.numbers[0]}"
    module = _LAST_SEGMENT.sub("", group.role)
    return f"{module} {group.depth_index}" if group.depth_count > 1 else module


def _parts(names: Iterable[str]) -> Parts:
    numbers: dict[str, int] = {}
    indices = [numbers.setdefault(name, len(numbers)) for name in names]
    return Parts(tuple(numbers), np.array(indices, np.intp))

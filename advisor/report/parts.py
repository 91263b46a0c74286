"""Parts of a model, each of which stands for several groups: roles or blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from advisor.policy import Layout
from advisor.policy.arrays import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A division of a layout's groups.

    Attributes:
        names: The parts, in the order of their first groups.
        indices: The part of each group, shape [groups].
    """

    names: tuple[str, ...]
    indices: npt.NDArray[np.intp]

    @classmethod
    def of(cls, names: Iterable[str]) -> Parts:
        """Return the parts of the groups of a layout.

        Args:
            names: The part that each group belongs to, in the order of the groups.
        """
        numbers: dict[str, int] = {}
        indices = [numbers.setdefault(name, len(numbers)) for name in names]
        return cls(tuple(numbers), np.array(indices, np.intp))

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

    def geometric_means_of_known(self, values: Floats) -> Floats:
        """Return the geometric mean over the groups of each part that have a value, shape [parts].

        Args:
            values: One for each group, at least 0; 0: unknown. A part without any has the mean 0.
        """
        known = (values > 0) & np.isfinite(values)
        size = len(self.names)
        logarithms = np.log(np.where(known, values, 1.0))
        counts = np.bincount(self.indices, known, size)
        means = np.exp(np.bincount(self.indices, logarithms, size) / np.maximum(counts, 1))
        found: Floats = np.where(counts > 0, means, 0.0)
        return found

    def members(self, name: str) -> list[int]:
        """Return the indices of the groups of a part; empty if there is no such part."""
        if name not in self.names:
            return []
        found: list[int] = np.flatnonzero(self.indices == self.names.index(name)).tolist()
        return found


def by_role(layout: Layout) -> Parts:
    """Return the roles of a layout: a tensor of all blocks is one part."""
    return Parts.of(group.role for group in layout.groups)

"""What trained weights look like, in any framework: initial ones differ by chance only.

The gains of a norm start as one number, and so do its biases. The rows of an initial matrix have
the same size up to chance, and so have its columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

FEWEST = 16
"""Rows and columns that a matrix needs, so that they can be compared."""

_STANDARD_ERRORS = 8.0
_ROUNDING = 1e-9  # of a relative variance; equal rows of float32 numbers differ by less


def unequal_entries(name: str, low: float, high: float) -> str:
    """Return that the entries of a norm differ; empty if they are all the same number.

    Args:
        name: Name of its gains or biases.
        low: The lowest entry.
        high: The highest one.
    """
    return f"the entries of {name} lie between {low:.3g} and {high:.3g}" if low != high else ""


def sizes_vary(mean_squares: ArrayLike, kurtosis: float, entries: int) -> bool:
    """Return whether the rows of a matrix differ in size by more than chance.

    The mean square of n independent entries with the kurtosis k varies by (k - 1) / n, relative.

    Args:
        mean_squares: Mean square of each row. Rows of zeros do not count, such as that of a padding
            token.
        kurtosis: Mean fourth power of all entries, relative to the square of their mean square.
        entries: Number of entries of a row.
    """
    sizes = np.asarray(mean_squares, np.float64)
    sizes = sizes[sizes > 0]
    if len(sizes) < FEWEST:
        return False
    by_chance = max((kurtosis - 1) / entries, _ROUNDING)
    found = float(sizes.var(ddof=1)) / float(sizes.mean()) ** 2
    return found > by_chance * (1 + _STANDARD_ERRORS * math.sqrt(2 / len(sizes)))


def unequal_matrices(vary: Sequence[bool]) -> str:
    """Return how many matrices look trained; empty if at most half of them do.

    Args:
        vary: Whether the rows or columns of each matrix differ in size by more than chance.
    """
    if 2 * sum(vary) <= len(vary):
        return ""
    return (
        f"the rows or columns of {sum(vary)} of {len(vary)} "
        f"{'matrix' if len(vary) == 1 else 'matrices'} differ in size by more than chance"
    )

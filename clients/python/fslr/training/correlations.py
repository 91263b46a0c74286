"""The part of a Gram matrix that a profile keeps: how alike the output changes of blocks are.

The advisor decides which groups share a role. In any case, names of one role differ only in their
block indices, which are numbers. So the pairs of groups whose names differ only in numbers include
every pair that it can need.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_NUMBER = re.compile(r"[0-9]+")
_MAX_ALIKE_GROUPS = 64  # pairs grow with the square; none are kept for larger families


def alike_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of groups whose names differ only in numbers.

    Args:
        names: The groups' names, in layout order.
    """
    families: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        families[_NUMBER.sub("*", name)].append(index)
    return [
        (first, second)
        for family in families.values()
        if len(family) <= _MAX_ALIKE_GROUPS
        for place, first in enumerate(family)
        for second in family[place + 1 :]
    ]


def correlations(gram: NDArray[np.float64], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return the correlation of the output changes of each pair, in [-1, 1].

    It is 0 where one of the two changes is zero.

    Args:
        gram: Inner products of the groups' output changes, shape [groups, groups].
        pairs: Indices of groups.
    """
    if not pairs:
        return []
    first, second = np.array(pairs).T
    norms = np.sqrt(np.maximum(gram[first, first] * gram[second, second], 0.0))
    found = np.divide(gram[first, second], norms, out=np.zeros_like(norms), where=norms > 0)
    # Entries of an unbiased Gram matrix may exceed the bounds of a true one.
    values: list[float] = np.clip(found, -1.0, 1.0).tolist()
    return values

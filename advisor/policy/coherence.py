r"""How much the blocks of each role change the outputs together, from correlations of pairs.

Let the output changes of a role's blocks have RMS :math:`r_i` and correlations :math:`c_{ij}`.
Together they change the outputs by :math:`T^2 = \sum_i r_i^2 + 2 \sum_{i<j} c_{ij} r_i r_j`. The
**coherence** :math:`\rho = \sum_{i<j} c_{ij} r_i r_j / \sum_{i<j} r_i r_j` is the one number that
gives the same :math:`T^2 = (1 - \rho) \sum_i r_i^2 + \rho\, (\sum_i r_i)^2`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from advisor.policy.errors import InvalidValueError
from advisor.policy.layout import Layout


def role_coherences(
    layout: Layout,
    pairs: Sequence[tuple[int, int]],
    correlations: NDArray[np.float32],
    unit_rates: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the coherence of each role at each point, shape [points, roles].

    A role of one block has coherence 0, which is never used. A role of several blocks without a
    measured pair has coherence 1, which is what the depth rule ``sum`` assumes.

    Args:
        layout: The groups.
        pairs: Pairs of different groups, as indices of the layout.
        correlations: Correlation of the output changes of each pair, in [-1, 1], shape
            [points, pairs].
        unit_rates: At least 0, shape [points, groups].

    Raises:
        InvalidValueError: A pair is not two groups of the layout, or a correlation is out of its
            range.
    """
    for i, pair in enumerate(pairs):
        if pair[0] == pair[1] or not all(0 <= index < len(layout) for index in pair):
            raise InvalidValueError(
                f"correlated_groups[{i}]",
                f"{pair[0]} and {pair[1]} are not two groups of a layout of {len(layout)}",
            )
    bad = np.argwhere(~(np.abs(correlations) <= 1))
    if bad.size:
        point, pair_index = (int(v) for v in bad[0])
        raise InvalidValueError(
            f"points[{point}].correlations[{pair_index}]",
            f"{correlations[point, pair_index]} is not a number in [-1, 1]",
        )
    places = {role: i for i, role in enumerate(layout.roles)}
    roles = np.array([places[group.role] for group in layout.groups])
    firsts, seconds = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    # Relative to the largest rate, because products of rates could overflow or underflow.
    largest = unit_rates.max(initial=0.0, where=np.isfinite(unit_rates))
    rates = np.nan_to_num(unit_rates.astype(np.float64)) / max(float(largest), 1e-300)
    coherences = np.zeros((len(unit_rates), len(places)), dtype=np.float32)
    for role in np.flatnonzero(np.bincount(roles, minlength=len(places)) > 1):
        own = np.flatnonzero((roles[firsts] == role) & (roles[seconds] == role))
        if not own.size:
            coherences[:, role] = 1.0
            continue
        weights = rates[:, firsts[own]] * rates[:, seconds[own]]
        weights += np.where(
            weights.sum(axis=1, keepdims=True) > 0, 0.0, 1.0
        )  # all zero: a plain mean
        weighted = (weights * correlations[:, own]).sum(axis=1) / weights.sum(axis=1)
        coherences[:, role] = np.clip(weighted, -1.0, 1.0)
    return coherences

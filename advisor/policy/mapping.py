r"""Map a layout onto a profile's layout: which base groups each group stands for.

A group finds its counterpart by name where role and depth agree too, else by role and depth. A
role of depth :math:`m` in the base and :math:`n` in the run is thought of as the stretch [0, 1],
cut into m and into n equal parts; :math:`o_{ij}` is the overlap of the base's part i and the run's
part j. With :math:`r_i` the base's rates the references are

* ``sum``:  :math:`R_j = \sum_i m\,o_{ij}\, r_i`: the parts of a base block add up to its rate,
  :math:`\sum_j R_j = \sum_i r_i` exactly;
* ``sqrt``: :math:`R_j^2 = \sum_i m\,o_{ij}\, r_i^2`: the same for squares;
* ``copy``: :math:`R_j = \sum_i n\,o_{ij}\, r_i`: each part keeps the (mean) rate of what it covers.

Source of ``sum``: FLeRM's depth rule, Milsom, Anson, Aitchison, arXiv 2502.17405.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy.errors import LayoutMismatchError
from advisor.policy.layout import Group, Layout
from advisor.policy.rules import DepthRule, UnmatchedRule

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LayoutMapping:
    """A sparse linear map from base rates to references, in coordinate form.

    Attributes:
        targets: Index of the run's group of each entry, shape [entries].
        sources: Index of the base's group of each entry, shape [entries].
        weights: Weight of each entry, shape [entries].
        squared: Whether the weights apply to squared rates.
        matched: Whether each group of the run has a counterpart, shape [groups].
    """

    targets: NDArray[np.intp]
    sources: NDArray[np.intp]
    weights: Floats
    squared: bool
    matched: NDArray[np.bool_]

    def references(self, base_rates: Floats) -> Floats:
        """Return the reference of each group of the run, 0 where unmatched, shape [groups].

        Args:
            base_rates: Unit rate of each base group, shape [base groups].
        """
        rates = base_rates[self.sources]
        terms = self.weights * (np.square(rates) if self.squared else rates)
        summed = np.bincount(self.targets, weights=terms, minlength=len(self.matched))
        return np.sqrt(summed) if self.squared else summed.astype(np.float64)

    def depth_factors(self) -> Floats:
        """Return reference over base rate where all sources have one rate, shape [groups]."""
        ones = np.ones(int(self.sources.max(initial=-1)) + 1)
        return self.references(ones)

    def sources_of(self, group: int) -> list[int]:
        """Return the indices of the base groups that a group's reference is made of."""
        return [int(source) for source in self.sources[self.targets == group]]


def overlaps(index: int, count: int, base_count: int) -> list[tuple[int, float]]:
    """Return (i, o) of the ``base_count`` parts of [0, 1] that part ``index`` of ``count`` meets.

    Exact for integer ratios: computed in integers, in units of ``1 / (count * base_count)``.
    """
    start, stop = index * base_count, (index + 1) * base_count
    met = range(start // count, -(-stop // count))
    return [
        (i, (min(stop, (i + 1) * count) - max(start, i * count)) / (count * base_count))
        for i in met
    ]


def map_layout(layout: Layout, base: Layout, depth_rule: DepthRule) -> LayoutMapping:
    """Map a run's layout onto a profile's; groups without a counterpart are marked, not refused.

    Args:
        layout: The run's layout.
        base: The profile's layout.
        depth_rule: How depth differences are bridged.
    """
    by_name = {group.name: i for i, group in enumerate(base.groups)}
    by_role: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for i, group in enumerate(base.groups):
        by_role[group.role][group.depth_index] = i

    entries = [
        (target, source, weight)
        for target, group in enumerate(layout.groups)
        for source, weight in _sources(group, base, by_name, by_role, depth_rule)
    ]
    matched = np.zeros(len(layout), dtype=np.bool_)
    matched[[target for target, _, _ in entries]] = True
    return LayoutMapping(
        targets=np.array([target for target, _, _ in entries], dtype=np.intp),
        sources=np.array([source for _, source, _ in entries], dtype=np.intp),
        weights=np.array([weight for _, _, weight in entries], dtype=np.float64),
        squared=depth_rule is DepthRule.SQRT,
        matched=matched,
    )


def refusal(
    layout: Layout, mapping: LayoutMapping, unmatched_rule: UnmatchedRule
) -> LayoutMismatchError | None:
    """Return why a mapped layout gets no advice, or None if it does.

    Args:
        layout: The run's layout.
        mapping: The layout, mapped.
        unmatched_rule: What happens to groups without a counterpart.
    """
    unmatched = [
        group.name
        for group, matched in zip(layout.groups, mapping.matched, strict=True)
        if not matched
    ]
    nothing_maps = len(unmatched) == len(layout)
    if unmatched and (nothing_maps or unmatched_rule is UnmatchedRule.ERROR):
        return LayoutMismatchError(unmatched, len(layout))
    return None


def _sources(
    group: Group,
    base: Layout,
    by_name: dict[str, int],
    by_role: dict[str, dict[int, int]],
    depth_rule: DepthRule,
) -> list[tuple[int, float]]:
    """Return the base groups (index, weight) of one group; empty where it has no counterpart."""
    namesake = by_name.get(group.name)
    if namesake is not None and _same_place(base.groups[namesake], group):
        return [(namesake, 1.0)]
    positions = by_role.get(group.role)
    if positions is None:
        return []
    base_count = base.groups[next(iter(positions.values()))].depth_count
    scale = group.depth_count if depth_rule is DepthRule.COPY else base_count
    met = overlaps(group.depth_index, group.depth_count, base_count)
    if any(i not in positions for i, _ in met):
        return []  # the base lacks a block of this stretch: half a reference would be a wrong one
    return [(positions[i], scale * overlap) for i, overlap in met]


def _same_place(one: Group, other: Group) -> bool:
    """Return whether two groups have the same role, position and depth."""
    return (one.role, one.depth_index, one.depth_count) == (
        other.role,
        other.depth_index,
        other.depth_count,
    )

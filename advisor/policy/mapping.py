r"""Map a layout onto a profile's layout: which base groups each group stands for.

A group finds its counterpart by the first matcher that has one: by name where the place in the
model agrees too; by role and depth; by the profile's alias table, then name or role; and, where the
policy allows it, by the nearest role.

A role of depth :math:`m` in the base and :math:`n` in the run is thought of as the stretch [0, 1],
cut into m and into n equal parts; :math:`o_{ij}` is the overlap of the base's part i and the run's
part j. With :math:`r_i` the base's rates the references are

* ``sum``:  :math:`R_j = \sum_i m\,o_{ij}\, r_i`: the parts of a base block add up to its rate,
  :math:`\sum_j R_j = \sum_i r_i` exactly;
* ``sqrt``: :math:`R_j^2 = \sum_i m\,o_{ij}\, r_i^2`: the same for squares;
* ``copy``: :math:`R_j = \sum_i n\,o_{ij}\, r_i`: each part keeps the (mean) rate of what it covers;
* ``measured``: ``sum`` times the factor that keeps the size of the role's whole output change, see
  :func:`_kept_size`.

Where a role has several indices, each has its own stretch and the shares multiply.

Source of ``sum``: FLeRM's depth rule, Milsom, Anson, Aitchison, arXiv 2502.17405.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from advisor.policy.errors import LayoutMismatchError
from advisor.policy.layout import Group, Layout
from advisor.policy.naming import AliasTable, GroupAlias, clean_names, without_wrappers
from advisor.policy.nearest import nearest_roles
from advisor.policy.rules import DepthRule, Match, UnmatchedRule

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LayoutMapping:
    """A sparse map from base rates to references, in coordinate form.

    Attributes:
        depth_rule: How depth differences are bridged.
        targets: Index of the run's group of each entry, shape [entries].
        sources: Index of the base's group of each entry, shape [entries].
        shares: Part of the source that the target covers, in (0, 1], shape [entries].
        spans: Part of the target that the source covers, shape [entries]; a target's add up to 1.
        matches: How each group of the run found its counterpart, shape [groups].
        families: For each group of the run the role of the base that it was mapped to by depth, as
            an index of ``Layout.roles``; -1: none, shape [groups].
        base_roles: The role of each base group, as an index of ``Layout.roles``, shape [base].
    """

    depth_rule: DepthRule
    targets: NDArray[np.intp]
    sources: NDArray[np.intp]
    shares: Floats
    spans: Floats
    matches: tuple[Match, ...]
    families: NDArray[np.intp]
    base_roles: NDArray[np.intp]

    @property
    def matched(self) -> NDArray[np.bool_]:
        """Whether each group of the run has a counterpart, shape [groups]."""
        return np.array([match is not Match.NONE for match in self.matches], dtype=np.bool_)

    def references(self, base_rates: Floats, coherences: Floats | None = None) -> Floats:
        """Return the reference of each group of the run, 0 where unmatched, shape [groups].

        Args:
            base_rates: Unit rate of each base group, shape [base groups].
            coherences: Mean correlation of the blocks' changes in each role of the base, shape
                [base roles]; needed for the rule ``measured`` alone.
        """
        rates = base_rates[self.sources]
        match self.depth_rule:
            case DepthRule.SUM:
                return self._added(self.shares * rates)
            case DepthRule.SQRT:
                return np.sqrt(self._added(self.shares * np.square(rates)))
            case DepthRule.COPY:
                return self._added(self.spans * rates)
            case DepthRule.MEASURED:
                summed = self._added(self.shares * rates)
                if coherences is None:
                    coherences = np.ones(int(self.base_roles.max(initial=-1)) + 1)
                return summed * self._kept_size(summed, base_rates, coherences)

    def depth_factors(self, references: Floats, base_rates: Floats) -> Floats:
        """Return reference over mean base rate of what each group covers, 0 where that is 0.

        Args:
            references: What :meth:`references` returned for ``base_rates``, shape [groups].
            base_rates: Unit rate of each base group, shape [base groups].
        """
        covered = self._added(self.spans * base_rates[self.sources])
        factors = np.zeros_like(references)
        np.divide(references, covered, out=factors, where=covered > 0)
        return factors

    def sources_of(self, group: int) -> list[int]:
        """Return the indices of the base groups that a group's reference is made of."""
        return [int(source) for source in self.sources[self.targets == group]]

    def _added(self, terms: Floats) -> Floats:
        summed = np.bincount(self.targets, weights=terms, minlength=len(self.matches))
        return summed.astype(np.float64)

    def _kept_size(self, summed: Floats, base_rates: Floats, coherences: Floats) -> Floats:
        r"""Return the factors on sums that keep the size of each role's whole change.

        With coherence :math:`\rho` (the mean correlation of the output changes of a role's blocks)
        the blocks together change the outputs by :math:`T^2 = (1-\rho)\sum_i r_i^2 +
        \rho(\sum_i r_i)^2`. The run's blocks get the sums :math:`S_j` times one factor per role, so
        that the same formula gives the same T. Coherence 1 is the rule ``sum``, 0 is ``sqrt`` where
        depth grows by an integer; negative ones count as 0.
        """
        factors = np.ones(len(summed))
        for family in np.unique(self.families[self.families >= 0]):
            rho = float(np.clip(coherences[family], 0.0, 1.0))
            own = self.families == family
            wanted = _size(base_rates[self.base_roles == family], rho)
            given = _size(summed[own], rho)
            if given > 0:
                factors[own] = wanted / given
        return factors


def _size(rates: Floats, coherence: float) -> float:
    """Return the RMS change of blocks together whose changes have this mean correlation."""
    largest = float(rates.max(initial=0.0))
    if largest == 0:
        return 0.0
    scaled = rates / largest  # squares of the largest rates would overflow
    squares, sums = float(np.square(scaled).sum()), float(scaled.sum())
    return largest * float(np.sqrt((1 - coherence) * squares + coherence * sums * sums))


def overlaps(index: int, count: int, base_count: int) -> list[tuple[int, float, float]]:
    """Return (i, share, span) of the ``base_count`` parts of [0, 1] that part ``index`` meets.

    ``share`` is the part of the base's part i that is met, ``span`` the part of this one. Computed
    in integers, in units of ``1 / (count * base_count)``, so that integer ratios are exact.
    """
    start, stop = index * base_count, (index + 1) * base_count
    met = range(start // count, -(-stop // count))
    lengths = [(i, min(stop, (i + 1) * count) - max(start, i * count)) for i in met]
    return [(i, length / count, length / base_count) for i, length in lengths]


_Source = tuple[int, float, float]


@dataclass(frozen=True, slots=True)
class _Base:
    """The base's groups by name and by role and place."""

    layout: Layout
    by_name: dict[str, int]
    by_role: dict[str, dict[tuple[int, ...], int]]
    counts: dict[tuple[str, tuple[int, ...]], int]

    @classmethod
    def of(cls, layout: Layout) -> _Base:
        names = clean_names([group.name for group in layout.groups])
        by_role: defaultdict[str, dict[tuple[int, ...], int]] = defaultdict(dict)
        counts: dict[tuple[str, tuple[int, ...]], int] = {}
        for i, group in enumerate(layout.groups):
            role = without_wrappers(group.role)
            by_role[role][group.indices] = i
            for axis, count in enumerate(group.counts):
                counts[role, group.indices[:axis]] = count
        return cls(layout, {name: i for i, name in enumerate(names)}, dict(by_role), counts)

    def named(self, group: Group) -> list[_Source]:
        """Return the group of the same name at the same place."""
        index = self.by_name.get(group.name)
        if index is None:
            return []
        found = self.layout.groups[index]
        same = (without_wrappers(found.role), found.indices, found.counts) == (
            group.role,
            group.indices,
            group.counts,
        )
        return [(index, 1.0, 1.0)] if same else []

    def in_role(self, group: Group) -> list[_Source]:
        """Return the groups of the same role that the group's stretch meets."""
        positions = self.by_role.get(group.role)
        if positions is None:
            return []
        met = list(self._met(group, ()))
        complete = all(len(path) == len(group.indices) for path, _, _ in met)
        if not complete or any(path not in positions for path, _, _ in met):
            return []  # the base lacks a block of this stretch: half a reference would be wrong
        return [(positions[path], share, span) for path, share, span in met]

    def _met(
        self, group: Group, path: tuple[int, ...]
    ) -> Iterator[tuple[tuple[int, ...], float, float]]:
        axis = len(path)
        if axis == len(group.indices):
            yield path, 1.0, 1.0
            return
        base_count = self.counts.get((group.role, path))
        if base_count is None:
            yield path, 1.0, 1.0  # the base has fewer indices, or lacks this block
            return
        for i, share, span in overlaps(group.indices[axis], group.counts[axis], base_count):
            for met, inner_share, inner_span in self._met(group, (*path, i)):
                yield met, share * inner_share, span * inner_span


def map_layout(
    layout: Layout,
    base: Layout,
    depth_rule: DepthRule,
    *,
    aliases: Sequence[GroupAlias] = (),
    unmatched_rule: UnmatchedRule = UnmatchedRule.ERROR,
) -> LayoutMapping:
    """Map a run's layout onto a profile's; groups without a counterpart are marked, not refused.

    Args:
        layout: The run's layout.
        base: The profile's layout.
        depth_rule: How depth differences are bridged.
        aliases: The profile's alias table, checked.
        unmatched_rule: Whether the nearest role may stand in for a missing one.
    """
    known = _Base.of(base)
    found: list[list[_Source]] = [[] for _ in layout.groups]
    matches = [Match.NONE] * len(layout)

    def settle(groups: dict[int, Group], ways: Sequence[tuple[Match, _Way]]) -> None:
        for i, group in groups.items():
            for match, way in ways:
                if sources := way(group):
                    found[i], matches[i] = sources, match
                    break

    def left() -> list[int]:
        return [i for i, match in enumerate(matches) if match is Match.NONE]

    if base.role_templates and not layout.role_templates:
        layout = layout.read_by(base.role_templates)
    plain = _plain(layout)
    settle(plain, [(Match.NAME, known.named), (Match.ROLE, known.in_role)])
    aliased = _aliased({i: plain[i] for i in left()}, aliases, base.role_templates)
    settle(aliased, [(Match.ALIAS, known.named), (Match.ALIAS, known.in_role)])
    if unmatched_rule is UnmatchedRule.NEAREST_ROLE:
        nearest = nearest_roles({plain[i].role for i in left()}, list(known.by_role))
        settle(
            {
                i: replace(plain[i], role=nearest[plain[i].role])
                for i in left()
                if plain[i].role in nearest
            },
            [(Match.NEAREST_ROLE, known.in_role)],
        )

    entries = [(i, *source) for i, sources in enumerate(found) for source in sources]
    targets, sources, shares, spans = zip(*entries, strict=True) if entries else ((),) * 4
    roles = {role: i for i, role in enumerate(base.roles)}
    base_roles = np.array([roles[group.role] for group in base.groups], dtype=np.intp)
    families = np.full(len(layout), -1, dtype=np.intp)
    for i, met in enumerate(found):
        if met:
            families[i] = base_roles[met[0][0]]
    return LayoutMapping(
        depth_rule=depth_rule,
        targets=np.array(targets, dtype=np.intp),
        sources=np.array(sources, dtype=np.intp),
        shares=np.array(shares, dtype=np.float64),
        spans=np.array(spans, dtype=np.float64),
        matches=tuple(matches),
        families=families,
        base_roles=base_roles,
    )


_Way = Callable[[Group], list[_Source]]


def _plain(layout: Layout) -> dict[int, Group]:
    """Return the groups with the wrappers taken out of names and given roles."""
    names = clean_names([group.name for group in layout.groups])
    return {
        i: replace(group, name=names[i], role=without_wrappers(group.role))
        for i, group in enumerate(layout.groups)
    }


def _aliased(
    groups: dict[int, Group], aliases: Sequence[GroupAlias], templates: Sequence[str]
) -> dict[int, Group]:
    """Return those groups that the alias table rewrites, in the base model's spelling."""
    table = AliasTable(aliases)
    rewritten: dict[int, Group] = {}
    for i, group in groups.items():
        if (name := table.rewritten(group.name)) is not None:
            rewritten[i] = Group(name)
        elif (role := table.rewritten(group.role)) is not None:
            rewritten[i] = replace(group, role=role)
    if not rewritten:
        return {}
    by_name = {group.name: i for i, group in rewritten.items()}
    if len(by_name) < len(rewritten):
        return {}  # two groups of one name: which of them the alias meant cannot be told
    placed = Layout.of(rewritten.values(), templates).groups
    return {by_name[group.name]: group for group in placed}


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

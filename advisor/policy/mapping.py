r"""Map a layout onto a profile's layout: which base groups each group stands for.

Both layouts are brought into one spelling first: wrappers leave the names, and names that the
profile does not know are rewritten by its alias table. Then a group finds the groups of its role,
index by index, from the outermost on, as :mod:`advisor.policy.depth_overlap` says: block for block
where both models hold the same ones, by overlap where depth differs. At most one index of a role is
bridged; stages never are, and blocks that hold rows of blocks only if their sizes are known, which
tell stages apart. Experts of another number are bridged too, but each sees tokens of its own: their
changes are orthogonal, whatever the depth rule.

With m blocks in the base, n in the run and the overlap :math:`o_{ij}` of the base's part i with the
run's part j, :math:`r_i` being the base's rates, the references are

* ``sum``:  :math:`R_j = \sum_i m\,o_{ij}\, r_i`: the parts of a base block add up to its rate,
  :math:`\sum_j R_j = \sum_i r_i` exactly;
* ``sqrt``: :math:`R_j^2 = \sum_i m\,o_{ij}\, r_i^2`: the same for squares;
* ``copy``: :math:`R_j = \sum_i n\,o_{ij}\, r_i`: each part keeps the (mean) rate of what it covers;
* ``measured``: ``sum`` times the factor that keeps the size of the whole output change of what is
  covered, see :func:`_kept_size`.

Experts take :math:`R_j = \sqrt{m / n} \sum_i n\,o_{ij}\, r_i`, squares under the root of the sum
where the rule is ``sqrt``. Where a role has several indices the
parts multiply.

Source of ``sum``: FLeRM's depth rule, Milsom, Anson, Aitchison, arXiv 2502.17405.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from advisor.policy.aliases import AliasTable, GroupAlias
from advisor.policy.arrays import Floats
from advisor.policy.errors import InvalidValueError, LayoutMismatchError
from advisor.policy.layout import Group, Layout, Place
from advisor.policy.matching import BaseGroups
from advisor.policy.nearest_roles import nearest_roles
from advisor.policy.parameter_names import clean_names
from advisor.policy.rules import DepthRule, Match, UnmatchedRule

_SQRT, _MEASURED = DepthRule.SQRT, DepthRule.MEASURED  # members of an enum are slow to look up
_MOST_STAND_INS = 4  # entries a group; more are no model's, and would fill the memory


@dataclass(frozen=True, slots=True)
class LayoutMapping:
    """A sparse map from base rates to references, in coordinate form.

    Attributes:
        depth_rule: How depth differences are bridged.
        targets: Index of the run's group of each entry, shape [entries].
        sources: Index of the base's group of each entry, shape [entries].
        shares: Part of the source's rate (its squared rate under ``sqrt``) that the target takes,
            shape [entries].
        spans: Part of the target that the source covers, shape [entries]; a target's add up to 1.
        blocks: Which base block of its family each entry takes from, experts of one block together:
            an index, shape [entries].
        block_families: The family of each of those, shape [blocks].
        matches: How each group of the run found its counterpart, shape [groups].
        families: Which groups of the run are bridged together: an index, the same for groups of one
            role that stand for groups of one role; -1: no counterpart, shape [groups].
        base_roles: The base role that each family stands for, as an index of the base's
            ``Layout.roles``, shape [families].
        matched: Whether each group of the run has a counterpart, shape [groups].
    """

    depth_rule: DepthRule
    targets: NDArray[np.intp]
    sources: NDArray[np.intp]
    shares: Floats
    spans: Floats
    blocks: NDArray[np.intp]
    block_families: NDArray[np.intp]
    matches: tuple[Match, ...]
    families: NDArray[np.intp]
    base_roles: NDArray[np.intp]

    matched: NDArray[np.bool_] = field(init=False)
    _one_each: bool = field(init=False)

    def __post_init__(self) -> None:
        """Note what does not change from one measurement to the next."""
        matched = np.array([match is not Match.NONE for match in self.matches], dtype=np.bool_)
        one_each = np.array_equal(self.targets, np.arange(len(self.matches)))
        object.__setattr__(self, "matched", matched)
        object.__setattr__(self, "_one_each", one_each)

    def references(self, base_rates: Floats, coherences: Floats | None = None) -> Floats:
        """Return the reference of each group of the run, 0 where unmatched, shape [..., groups].

        Args:
            base_rates: Unit rate of each base group, shape [..., base groups].
            coherences: Mean correlation of the blocks' changes in each role of the base, shape
                [..., base roles]; needed for the rule ``measured`` alone.
        """
        if self.depth_rule is _MEASURED and coherences is not None and base_rates.ndim > 1:
            return np.stack([*map(self.references, base_rates, coherences)])
        rates = np.take(base_rates, self.sources, axis=-1)
        if self.depth_rule is _SQRT:
            return np.sqrt(self._added(self.shares * np.square(rates)))
        references = self._added(self.shares * rates)
        if self.depth_rule is _MEASURED and coherences is not None:
            references *= self._kept_size(references, base_rates, coherences)
        return references

    def depth_factors(self, references: Floats, base_rates: Floats) -> Floats:
        """Return reference over mean base rate of what each group covers, 0 where that is 0.

        Args:
            references: What :meth:`references` returned for ``base_rates``, shape [..., groups].
            base_rates: Unit rate of each base group, shape [..., base groups].
        """
        covered = self._added(self.spans * np.take(base_rates, self.sources, axis=-1))
        known = covered > 0
        if np.count_nonzero(known) == covered.size:
            return references / covered
        factors = np.zeros_like(references)
        np.divide(references, covered, out=factors, where=known)
        return factors

    def sources_of(self, group: int) -> list[int]:
        """Return the indices of the base groups that a group's reference is made of."""
        return [int(source) for source in self.sources[self.targets == group]]

    def combined(self, base_errors: Floats) -> Floats:
        """Return the mean over what each group covers, 0 where unmatched, shape [..., groups].

        Args:
            base_errors: A number for each base group, shape [..., base groups].
        """
        return self._added(self.spans * np.take(base_errors, self.sources, axis=-1))

    def _added(self, terms: Floats) -> Floats:
        """Return the sum of each target's terms, shape [..., groups]."""
        if self._one_each:
            return terms
        if terms.ndim > 1:
            return np.stack([*map(self._added, terms)])
        summed = np.bincount(self.targets, weights=terms, minlength=len(self.matches))
        return summed.astype(np.float64)

    def _kept_size(self, summed: Floats, base_rates: Floats, coherences: Floats) -> Floats:
        r"""Return the factors on sums that keep the size of each family's whole change.

        With coherence :math:`\rho` (the mean correlation of the output changes of a role's blocks)
        blocks of rates r change the outputs by :math:`T^2 = (1-\rho)\sum_i r_i^2 + \rho(\sum_i
        r_i)^2`. A family of the run's groups covers the parts :math:`c_i r_i` of the base's; they
        get the sums :math:`S_j` times one factor, so that the same formula gives the same T.
        Coherence 1 is the rule ``sum``, 0 is ``sqrt`` where depth grows by an integer; negative
        ones count as 0.
        """
        count = len(self.base_roles)
        rho = np.clip(coherences[self.base_roles], 0.0, 1.0)
        covered = np.bincount(
            self.blocks,
            weights=self.shares * base_rates[self.sources],
            minlength=len(self.block_families),
        ).astype(np.float64)
        wanted = _size(covered, self.block_families, rho)
        there = self.families >= 0
        given = _size(summed[there], self.families[there], rho)
        ratios = np.ones(count)
        np.divide(wanted, given, out=ratios, where=given > 0)
        factors = np.ones(len(summed))
        factors[there] = ratios[self.families[there]]
        return factors


def _size(rates: Floats, families: NDArray[np.intp], coherences: Floats) -> Floats:
    """Return the RMS change of each family's blocks together, shape [families].

    Args:
        rates: RMS change of each block, shape [blocks].
        families: The family of each block, shape [blocks].
        coherences: Mean correlation of the changes in each family, shape [families].
    """
    order = np.lexsort((rates, families))  # sums do not hang on the order of groups by one bit
    rates, families = rates[order], families[order]
    sums = np.bincount(families, weights=rates, minlength=len(coherences))
    squares = np.bincount(families, weights=np.square(rates), minlength=len(coherences))
    return np.sqrt((1 - coherences) * squares + coherences * np.square(sums))


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
    base_names = clean_names([group.name for group in base.groups])
    base_role = {role: i for i, role in enumerate(base.roles)}
    base_roles = [base_role[group.role] for group in base.groups]
    if not base.role_templates:
        base = _read_by(base, layout.role_templates)
    if not layout.role_templates:
        layout = _read_by(layout, base.role_templates)
    known = BaseGroups(base, depth_rule)
    layout, rewritten = _rewritten(layout, aliases, frozenset(known.roles))
    names = clean_names([group.name for group in layout.groups])

    found = [known.counterparts(place, place.role) for place in layout.places]
    matches = [Match.NONE] * len(layout)
    for i, counterparts in enumerate(found):
        if counterparts:
            sources = counterparts.sources
            named = not counterparts.crossed and base_names[sources[0][0]] == names[i]
            plain = Match.NAME if named else Match.ROLE
            matches[i] = Match.ALIAS if i in rewritten else plain
    if unmatched_rule is UnmatchedRule.NEAREST_ROLE:
        missing = [i for i, match in enumerate(matches) if match is Match.NONE]
        # Layers with fixed numbers are one of a kind: nothing is near to the third of a sequence.
        wanted = {layout.places[i].role for i in missing if not layout.places[i].fixed}
        there = {place.role for place in base.places if not place.fixed}
        nearest = nearest_roles(wanted, [role for role in known.roles if role in there])
        room = _MOST_STAND_INS * (len(layout) + len(base))
        for i in missing:
            place = layout.places[i]
            stand_in = (
                known.counterparts(place, nearest[place.role]) if place.role in nearest else None
            )
            room -= len(stand_in.sources) if stand_in else 0
            if stand_in and room >= 0:
                found[i], matches[i] = stand_in, Match.NEAREST_ROLE

    families = {some.family: some for some in found if some}
    places = {family: i for i, family in enumerate(families)}
    blocks: dict[tuple[int, tuple[int, ...]], int] = {}
    entries = [
        (i, source, share, span, blocks.setdefault((places[some.family], block), len(blocks)))
        for i, some in enumerate(found)
        if some
        for source, share, span, block in some.sources
    ]
    targets, sources, shares, spans, block_of = zip(*entries, strict=True) if entries else ((),) * 5
    return LayoutMapping(
        depth_rule=depth_rule,
        targets=np.array(targets, dtype=np.intp),
        sources=np.array(sources, dtype=np.intp),
        shares=np.array(shares, dtype=np.float64),
        spans=np.array(spans, dtype=np.float64),
        blocks=np.array(block_of, dtype=np.intp),
        block_families=np.array([family for family, _ in blocks], dtype=np.intp),
        matches=tuple(matches),
        families=np.array([places[some.family] if some else -1 for some in found], dtype=np.intp),
        base_roles=np.array(
            [base_roles[some.sources[0][0]] for some in families.values()], dtype=np.intp
        ),
    )


def _read_by(layout: Layout, role_templates: Sequence[str]) -> Layout:
    """Return a layout with the roles that come of names read by other templates."""
    if not role_templates:
        return layout
    unread = map(_unread, layout.groups, layout.places)
    return Layout.of(unread, role_templates, layout.frozen_names, layout.frozen_parameter_counts)


def _unread(group: Group, place: Place) -> Group:
    """Return a group as its name alone gives it; as it is where its role was given."""
    if place.fixed is None:
        return group
    return Group(group.name, parameter_count=group.parameter_count)


def _rewritten(
    layout: Layout, aliases: Sequence[GroupAlias], base_roles: frozenset[str]
) -> tuple[Layout, set[int]]:
    """Return a layout in the base model's spelling, and which groups the alias table rewrote.

    Where the base knows a role, its groups keep their names. Groups that would get one name keep
    theirs too: which of them an alias meant cannot be told.
    """
    table = AliasTable(aliases)
    names = clean_names([*(group.name for group in layout.groups), *layout.frozen_names])
    unknown = [place.role not in base_roles for place in layout.places]
    spelled = [
        (table.rewritten(name) or name) if i >= len(unknown) or unknown[i] else name
        for i, name in enumerate(names)
    ]
    counts = Counter(spelled)
    kept = [new if counts[new] == 1 else old for old, new in zip(names, spelled, strict=True)]
    groups, changed = [], set()
    for i, (group, place) in enumerate(zip(layout.groups, layout.places, strict=True)):
        role = table.rewritten(place.role) if unknown[i] and place.fixed is None else None
        if kept[i] != names[i]:
            groups.append(Group(kept[i], parameter_count=group.parameter_count))
        else:
            groups.append(replace(_unread(group, place), name=kept[i]))
            groups[-1] = replace(groups[-1], role=role) if role else groups[-1]
        if role or kept[i] != names[i]:
            changed.add(i)
    if not changed:
        return layout, changed
    try:
        spelled_anew = Layout.of(
            groups, layout.role_templates, kept[len(groups) :], layout.frozen_parameter_counts
        )
    except InvalidValueError:  # roles that were given and do not fit together once rewritten
        return layout, set()
    return spelled_anew, changed


def refusal(
    layout: Layout, mapping: LayoutMapping, unmatched_rule: UnmatchedRule
) -> LayoutMismatchError | None:
    """Return why a mapped layout gets no advice, or None if it does.

    Args:
        layout: The run's layout.
        mapping: The layout, mapped.
        unmatched_rule: What happens to groups without a counterpart.
    """
    if mapping.matched.all():
        return None
    unmatched = [
        group.name
        for group, matched in zip(layout.groups, mapping.matched, strict=True)
        if not matched
    ]
    nothing_maps = len(unmatched) == len(layout)
    if unmatched and (nothing_maps or unmatched_rule is UnmatchedRule.ERROR):
        return LayoutMismatchError(unmatched, len(layout))
    return None

"""Finds the counterparts of a run's group among the base's groups, index by index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from advisor.policy.block_rows import Row
from advisor.policy.depth_overlap import RowOverlap
from advisor.policy.layout import Layout, Place
from advisor.policy.parameter_names import Axis, axes_of
from advisor.policy.rules import DepthRule


class Source(NamedTuple):
    """A base group that is part of a group's reference.

    Attributes:
        group: Index of the base group.
        share: Factor on its rate (its squared rate under ``sqrt``).
        span: Fraction of the run's group that it covers.
        block: Numbers of its block, without experts: the experts of one block share it.
    """

    group: int
    share: float
    span: float
    block: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Counterparts:
    """What a group of the run corresponds to.

    Attributes:
        sources: The base groups, at least one.
        family: Equal for groups that share a row of resized blocks.
        resized: Whether any row differs in its number of blocks.
    """

    sources: tuple[Source, ...]
    family: tuple[object, ...]
    resized: bool


class _Path(NamedTuple):
    """Numbers of a base block along the first few indices of a role; see :class:`Source`."""

    numbers: tuple[int, ...]
    share: float
    span: float
    block: tuple[int, ...]


class BaseGroups:
    """The base's groups by role and place.

    Args:
        layout: The base's layout.
        rule: How references follow from base rates where depth differs.

    Attributes:
        roles: The roles, in the order of their first groups.
    """

    def __init__(self, layout: Layout, rule: DepthRule) -> None:
        self._rule = rule
        self._places = layout.places
        self._index = {(place.role, place.numbers): i for i, place in enumerate(layout.places)}
        self._rows = {
            (place.role, place.numbers[:axis]): row
            for place in layout.places
            for axis, row in enumerate(place.rows)
        }
        self._long = {
            (role, len(path)) for (role, path), row in self._rows.items() if row.members[1:]
        }
        self._overlaps: dict[tuple[int, int], RowOverlap] = {}
        self.roles = list(dict.fromkeys(place.role for place in layout.places))

    def counterparts(self, place: Place, role: str) -> Counterparts | None:
        """Return what a group corresponds to among the groups of a role, or None if to nothing.

        Args:
            place: The group's place.
            role: The base's role: the group's own, or one that stands in for it.
        """
        paths = [_Path((), 1.0, 1.0, ())]
        followed: list[int | None] = []  # None: along a row of resized blocks
        resized: list[Axis] = []
        axes = axes_of(role, len(place.numbers))
        for axis, kind in enumerate(axes):
            rows = self._row_overlaps(place.rows[axis], role, paths)
            if rows is None:
                return None
            is_resized = any(row.resized for row in rows)
            if is_resized:
                if self._must_keep_count(rows, place, role, axes, axis):
                    return None
                resized.append(kind)
            number = place.numbers[axis]
            followed.append(None if is_resized and kind is not Axis.EXPERT else number)
            extended = self._extended(paths, rows, number, kind)
            if extended is None:
                return None
            paths = extended
        if resized.count(Axis.DEPTH) > 1:
            return None
        sources = self._sources(role, paths)
        if sources is None or self._fixed_numbers_differ(place, sources[0].group):
            return None
        return Counterparts(sources, (place.role, role, *followed), bool(resized))

    def _row_overlaps(self, row: Row, role: str, paths: Sequence[_Path]) -> list[RowOverlap] | None:
        """Compare a row with the base's row at each path; None if the base lacks one of them."""
        found = []
        for path in paths:
            base = self._rows.get((role, path.numbers))
            if base is None:
                return None
            key = id(row), id(base)
            if key not in self._overlaps:
                self._overlaps[key] = RowOverlap(row, base)
            found.append(self._overlaps[key])
        return found

    def _must_keep_count(
        self,
        rows: Sequence[RowOverlap],
        place: Place,
        role: str,
        axes: Sequence[Axis],
        axis: int,
    ) -> bool:
        """Return whether blocks along an index correspond only if their number is the same.

        That holds for stages, and for blocks that contain rows of blocks unless all sizes are
        known, as they may be stages.
        """
        if axes[axis] is Axis.STAGE:
            return True
        sized = all(row.sized for row in rows)
        return not sized and self._contains_rows(place, role, axes, axis)

    def _contains_rows(self, place: Place, role: str, axes: Sequence[Axis], axis: int) -> bool:
        """Return whether the blocks along an index contain rows of several blocks."""
        return axes[axis] is Axis.DEPTH and any(
            kind is Axis.DEPTH
            and (len(place.rows[inner].members) > 1 or (role, inner) in self._long)
            for inner, kind in enumerate(axes)
            if inner > axis
        )

    def _extended(
        self, paths: Sequence[_Path], rows: Sequence[RowOverlap], number: int, kind: Axis
    ) -> list[_Path] | None:
        """Return the paths extended by one index, or None if the rows do not compare."""
        extended = []
        for path, row in zip(paths, rows, strict=True):
            overlaps = row.counterparts(number)
            if overlaps is None:
                return None
            for base_number, share, span in overlaps:
                extended.append(
                    _Path(
                        (*path.numbers, base_number),
                        path.share * self._weight(kind, share, span),
                        path.span * span,
                        path.block if kind is Axis.EXPERT else (*path.block, base_number),
                    )
                )
        return extended

    def _sources(self, role: str, paths: Sequence[_Path]) -> tuple[Source, ...] | None:
        """Return the groups at the ends of the paths.

        None if one is missing: a reference from only some of the blocks would be wrong.
        """
        found = []
        for path in paths:
            group = self._index.get((role, path.numbers))
            if group is None:
                return None
            found.append(Source(group, path.share, path.span, path.block))
        return tuple(found)

    def _fixed_numbers_differ(self, place: Place, group: int) -> bool:
        """Return whether a fixed number of the role stands in a container of different numbers."""
        base = self._places[group]
        both_derived = base.role == place.role and None not in {base.fixed, place.fixed}
        return both_derived and base.fixed != place.fixed

    def _weight(self, kind: Axis, share: float, span: float) -> float:
        """Return the fraction of a block's rate (or squared rate) that an overlapping one takes."""
        if self._rule is DepthRule.SQRT:
            return share
        if kind is Axis.EXPERT:
            return math.sqrt(share * span)  # the span times the root of m / n
        return span if self._rule is DepthRule.COPY else share

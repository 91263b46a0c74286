"""What a group of a run stands for among the groups of a base: index by index, outermost first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from advisor.policy.block_rows import Row
from advisor.policy.depth_overlap import Bridge
from advisor.policy.layout import Layout, Place
from advisor.policy.parameter_names import Axis, axes_of
from advisor.policy.rules import DepthRule


@dataclass(frozen=True, slots=True)
class Counterparts:
    """What a group stands for.

    Attributes:
        sources: Base group, share, span and base block (experts of one block together) each.
        family: What is bridged together.
        crossed: Whether anything is bridged.
    """

    sources: tuple[tuple[int, float, float, tuple[int, ...]], ...]
    family: tuple[object, ...]
    crossed: bool


class BaseGroups:
    """The base's groups by role and place.

    Args:
        layout: The base's layout.
        rule: How depth differences are bridged.
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
        self._bridges: dict[tuple[int, int], Bridge] = {}
        self.roles = list(dict.fromkeys(place.role for place in layout.places))

    def counterparts(self, place: Place, role: str) -> Counterparts | None:
        """Return what a group stands for among the groups of a role, or None.

        Args:
            place: The group's place.
            role: Its own role, or another one that stands in.
        """
        # Path of numbers, share, span, and the path without experts.
        met: list[tuple[tuple[int, ...], float, float, tuple[int, ...]]] = [((), 1.0, 1.0, ())]
        followed: list[int | None] = []
        depths = 0
        any_crossed = False
        axes = axes_of(role, len(place.numbers))
        for axis, kind in enumerate(axes):
            row, number = place.rows[axis], place.numbers[axis]
            bridges = [self._bridge(row, role, path) for path, _, _, _ in met]
            crossed = any(bridge is not None and bridge.crossed for bridge in bridges)
            sized = all(bridge is not None and bridge.sized for bridge in bridges)
            like_stages = not sized and self._has_rows_inside(place, role, axis, axes)
            if crossed and (kind is Axis.STAGE or like_stages):
                return None
            depths += crossed and kind is Axis.DEPTH
            any_crossed |= crossed
            further = []
            for bridge, (path, share, span, block) in zip(bridges, met, strict=True):
                stretch = None if bridge is None else bridge.counterparts(number)
                if bridge is None or stretch is None:
                    return None
                further += [
                    (
                        (*path, n),
                        share * self._weight(kind, own_share, own_span),
                        span * own_span,
                        block if kind is Axis.EXPERT else (*block, n),
                    )
                    for n, own_share, own_span in stretch
                ]
            met = further
            bridged = crossed and kind is not Axis.EXPERT
            followed.append(None if bridged else number)
        if depths > 1:
            return None
        if any((role, path) not in self._index for path, _, _, _ in met):
            return None  # the base lacks a block of this stretch: half a reference would be wrong
        sources = tuple(
            (self._index[role, path], share, span, block) for path, share, span, block in met
        )
        base = self._places[sources[0][0]]
        both_read = base.role == place.role and None not in {base.fixed, place.fixed}
        if both_read and base.fixed != place.fixed:
            return None
        return Counterparts(sources, (place.role, role, *followed), any_crossed)

    def _bridge(self, row: Row, role: str, path: tuple[int, ...]) -> Bridge | None:
        base = self._rows.get((role, path))
        if base is None:
            return None
        key = id(row), id(base)
        if key not in self._bridges:
            self._bridges[key] = Bridge(row, base)
        return self._bridges[key]

    def _has_rows_inside(self, place: Place, role: str, axis: int, axes: Sequence[Axis]) -> bool:
        """Return whether the blocks along an index hold rows of blocks of their own."""
        return axes[axis] is Axis.DEPTH and any(
            kind is Axis.DEPTH
            and (len(place.rows[inner].members) > 1 or (role, inner) in self._long)
            for inner, kind in enumerate(axes)
            if inner > axis
        )

    def _weight(self, kind: Axis, share: float, span: float) -> float:
        """Return which part of a block's rate (or squared rate) one that overlaps it takes."""
        if self._rule is DepthRule.SQRT:
            return share
        if kind is Axis.EXPERT:
            return math.sqrt(share * span)  # the span times the root of m / n
        return span if self._rule is DepthRule.COPY else share

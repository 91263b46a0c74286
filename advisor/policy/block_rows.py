"""Rows of blocks: which blocks a container holds, which of them are alike, where sizes change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from advisor.policy.parameter_names import Spelling

_MOST_KINDS = 64  # of blocks in one container

RowKey = tuple[str, tuple[int, ...]]
"""A role and the numbers of the outer blocks."""

Sizes = dict[int, tuple[int, ...]]
"""Of a role the sizes of its parameters, by block."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """The blocks along one index, inside the same outer blocks.

    Attributes:
        siblings: All numbers that the container holds.
        alike: The numbers of those blocks that share a role with the ones that have this role,
            rising: what this role could stand in.
        members: The numbers of those blocks that have this role, rising.
        cuts: The numbers at which blocks of other sizes begin, whichever of the roles that all
            alike blocks have changes its size; None: sizes change, and where cannot be told.
        sized: Whether the sizes of all members are known.
    """

    siblings: frozenset[int]
    alike: tuple[int, ...]
    members: tuple[int, ...]
    cuts: frozenset[int] | None = frozenset()
    sized: bool = False


def rows_of(spellings: Sequence[Spelling], sizes: Sequence[int]) -> dict[RowKey, Row]:
    """Return the rows of all roles, by role and outer block numbers."""
    found: defaultdict[RowKey, defaultdict[str, defaultdict[int, list[int]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for spelling, size in zip(spellings, sizes, strict=True):
        for axis, number in enumerate(spelling.numbers):
            container = spelling.prefixes[axis], spelling.numbers[:axis]
            found[container][spelling.role][number].append(size)
    rows: dict[RowKey, Row] = {}
    for (_, outer), roles in found.items():
        sized = {
            role: {number: tuple(sorted(own)) for number, own in blocks.items()}
            for role, blocks in roles.items()
        }
        rows |= {(role, outer): row for role, row in _container_rows(sized).items()}
    return rows


def _container_rows(roles: dict[str, Sizes]) -> dict[str, Row]:
    """Return the row of each role of one container.

    Args:
        roles: Of each role the sizes of its parameters, by block.
    """
    sets = {role: frozenset(blocks) for role, blocks in roles.items()}
    siblings = frozenset().union(*sets.values())
    distinct = set(sets.values())
    if len(distinct) > _MOST_KINDS:
        # No real model: blocks are told by their numbers alone, for all else would take its time.
        return {
            role: Row(siblings, (), tuple(sorted(own)), cuts=None) for role, own in sets.items()
        }
    alike = {
        own: own.union(*(other for other in distinct if not own.isdisjoint(other)))
        for own in distinct
    }
    cuts = {
        row: frozenset[int]().union(
            *(size_changes(roles[role]) or () for role, own in sets.items() if own == row)
        )
        for row in set(alike.values())
    }
    ordered = {row: tuple(sorted(row)) for row in {*alike, *alike.values()}}
    rows = {}
    for role, own in sets.items():
        row, changes = alike[own], size_changes(roles[role])
        told: frozenset[int] | None = cuts[row]
        # Changes that nothing in all alike blocks shows, of a role that is not in all of them.
        if changes is None or (own != row and not _explained(changes, ordered[own], cuts[row])):
            told = None
        sized = all(all(size) for size in roles[role].values())
        rows[role] = Row(siblings, ordered[row], ordered[own], told, sized)
    return rows


def size_changes(blocks: Sizes) -> frozenset[int] | None:
    """Return at which blocks the size is another than before; None: some known, some not."""
    known = {size for size in blocks.values() if all(size)}
    if len(known) <= 1:
        return frozenset()
    if not all(all(size) for size in blocks.values()):
        return None
    numbers = sorted(blocks)
    return frozenset(b for a, b in pairwise(numbers) if blocks[a] != blocks[b])


def _explained(changes: frozenset[int], numbers: Sequence[int], cuts: frozenset[int]) -> bool:
    """Return whether between each block where a size changes and the one before lies a cut."""
    before = dict(zip(numbers[1:], numbers, strict=False))
    return all(any(before[b] < cut <= b for cut in cuts) for b in changes)

"""Rows of blocks: which blocks a container holds, which are similar, and where sizes change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from advisor.policy.parameter_names import ParsedName

_MAX_KINDS = 64  # of blocks in one container; no real model has more

RowKey = tuple[str, tuple[int, ...]]
"""A role and the numbers of the outer blocks."""

Sizes = dict[int, tuple[int, ...]]
"""Sizes of the parameters of a role, by block number; 0: unknown."""

Numbers = frozenset[int]
"""Numbers of blocks."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """The blocks along one index, inside the same outer blocks.

    Blocks are similar to those of a role if they share any role with one of them.

    Attributes:
        siblings: All numbers that the container holds.
        alike: Rising numbers of the blocks similar to those of this role: where it could stand.
        members: Rising numbers of the blocks that have this role.
        cuts: Numbers at which blocks of different sizes begin, in any role that all similar blocks
            have; None: sizes change, but where is unknown.
        sized: Whether the sizes of all members are known.
    """

    siblings: Numbers
    alike: tuple[int, ...]
    members: tuple[int, ...]
    cuts: Numbers | None = frozenset()
    sized: bool = False


def rows_of(names: Sequence[ParsedName], sizes: Sequence[int]) -> dict[RowKey, Row]:
    """Return the rows of all roles, by role and outer block numbers.

    Args:
        names: All names of a model, parsed.
        sizes: Number of scalars of each parameter; 0: unknown.
    """
    found: defaultdict[RowKey, defaultdict[str, defaultdict[int, list[int]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for name, size in zip(names, sizes, strict=True):
        for axis, number in enumerate(name.numbers):
            container = name.prefixes[axis], name.numbers[:axis]
            found[container][name.role][number].append(size)
    rows: dict[RowKey, Row] = {}
    for (_, outer), roles in found.items():
        sized = {
            role: {number: tuple(sorted(own)) for number, own in blocks.items()}
            for role, blocks in roles.items()
        }
        rows |= {(role, outer): row for role, row in _container_rows(sized).items()}
    return rows


def _container_rows(roles: Mapping[str, Sizes]) -> dict[str, Row]:
    """Return the row of each role of one container.

    Args:
        roles: Sizes of the parameters of each role, by block number.
    """
    members = {role: frozenset(blocks) for role, blocks in roles.items()}
    siblings = frozenset().union(*members.values())
    kinds = set(members.values())
    if len(kinds) > _MAX_KINDS:
        # Not a real model: skip the search for similar blocks, which would take too long.
        return {
            role: Row(siblings, (), tuple(sorted(own)), cuts=None) for role, own in members.items()
        }
    alike = {own: _similar(own, kinds) for own in kinds}
    changes = {role: size_changes(blocks) for role, blocks in roles.items()}
    cuts = {row: _cuts(row, members, changes) for row in set(alike.values())}
    ordered = {row: tuple(sorted(row)) for row in {*alike, *alike.values()}}
    rows = {}
    for role, own in members.items():
        row, own_changes = alike[own], changes[role]
        # A role that some similar blocks lack may change its size only where others do.
        known = own_changes is not None and (
            own == row or _explained(own_changes, ordered[own], cuts[row])
        )
        rows[role] = Row(
            siblings,
            ordered[row],
            ordered[own],
            cuts=cuts[row] if known else None,
            sized=all(all(size) for size in roles[role].values()),
        )
    return rows


def _similar(own: Numbers, kinds: Iterable[Numbers]) -> Numbers:
    """Return the numbers of the blocks similar to the given ones, those included."""
    return own.union(*(other for other in kinds if not own.isdisjoint(other)))


def _cuts(
    row: Numbers, members: Mapping[str, Numbers], changes: Mapping[str, Numbers | None]
) -> Numbers:
    """Return where the size of any role that all blocks of a row have changes."""
    whole = (changes[role] for role, own in members.items() if own == row)
    return frozenset[int]().union(*(found or () for found in whole))


def size_changes(blocks: Sizes) -> Numbers | None:
    """Return the blocks whose size differs from the block before; None: only some are known."""
    known = {size for size in blocks.values() if all(size)}
    if len(known) <= 1:
        return frozenset()
    if not all(all(size) for size in blocks.values()):
        return None
    numbers = sorted(blocks)
    return frozenset(b for a, b in pairwise(numbers) if blocks[a] != blocks[b])


def _explained(changes: Numbers, numbers: Sequence[int], cuts: Numbers) -> bool:
    """Return whether a cut lies between each block whose size changes and the one before it."""
    before = dict(zip(numbers[1:], numbers, strict=False))
    return all(any(before[b] < cut <= b for cut in cuts) for b in changes)

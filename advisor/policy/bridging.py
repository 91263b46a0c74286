r"""Along one index of a role: which of the base's blocks a block of the run stands for.

Where both containers hold the same blocks, for the block of its number. Else a row of n blocks is
compared with a row of m: both are the stretch [0, 1], cut in n and in m equal parts, and a part
stands for those that it overlaps.

What is cut is the row of the blocks that have the role, if all alike blocks have it, or if both
models leave out the same (every second layer has experts; the first one has a position bias). If
only some were chosen to be trained (adapters on the last layers), it is the row of all alike
blocks.

Blocks of other sizes are other layers (the first of a stage, the last of an MLP), so a row is cut
at every change of size, and the pieces are compared one with one, if there are as many.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import groupby

from advisor.policy.layout import Row

Stretch = list[tuple[int, float, float]]
"""Numbers of base blocks, each with the part of it and the part of the run's block."""


def overlaps(index: int, count: int, base_count: int) -> Stretch:
    """Return (i, share, span) of the ``base_count`` parts of [0, 1] that part ``index`` meets.

    ``share`` is the part of the base's part i that is met, ``span`` the part of this one. Computed
    in integers, in units of ``1 / (count * base_count)``, so that integer ratios are exact.
    """
    start, stop = index * base_count, (index + 1) * base_count
    met = range(start // count, -(-stop // count))
    lengths = [(i, min(stop, (i + 1) * count) - max(start, i * count)) for i in met]
    return [(i, length / count, length / base_count) for i, length in lengths]


class Bridge:
    """Compares one row of the run with one of the base.

    Args:
        own: The run's row.
        base: The base's row.

    Attributes:
        same: Whether both hold the same blocks, so that nothing is bridged.
        crossed: Whether the number of blocks differs.
        sized: Whether the sizes of all blocks of both rows are known.
    """

    def __init__(self, own: Row, base: Row) -> None:
        self.same = own.siblings == base.siblings
        everything = own.members == own.alike and base.members == base.alike
        self._by_members = everything or _leave_out_the_same(own, base)
        self._rows = (own.members, base.members) if self._by_members else (own.alike, base.alike)
        self._pieces = _pieces(own), _pieces(base)
        self.sized = all(all(size) for row in (own, base) for size in row.sizes)
        self.crossed = not self.same and (
            len(self._rows[0]) != len(self._rows[1]) or _lengths(own) != _lengths(base)
        )

    def counterparts(self, number: int) -> Stretch | None:
        """Return what the block of a number stands for, or None if that cannot be told.

        The base need not have the role in all of these blocks.
        """
        if self.same:
            return [(number, 1.0, 1.0)]
        row, base_row = self._rows
        pieces, base_pieces = self._pieces
        if pieces is None or base_pieces is None or len(pieces) != len(base_pieces):
            return None
        if len(pieces) > 1:
            if not self._by_members:
                return None
            which = next(i for i, piece in enumerate(pieces) if number <= piece[-1])
            row, base_row = pieces[which], base_pieces[which]
        stretch = overlaps(bisect_left(row, number), len(row), len(base_row))
        return [(base_row[i], share, span) for i, share, span in stretch]


def _lengths(row: Row) -> list[int]:
    return [len(piece) for piece in _pieces(row) or []]


def _leave_out_the_same(own: Row, base: Row) -> bool:
    """Return whether two models have a role in the same places of rows of different lengths."""
    if own.members == own.alike or base.members == base.alike:
        return False  # one leaves out nothing
    places, base_places = _places(own), _places(base)
    length, base_length = len(own.alike), len(base.alike)
    if len(places) == len(base_places):
        pairs = zip(places, base_places, strict=True)
        return all(a == b or length - a == base_length - b for a, b in pairs)
    if _is_run(places) and _is_run(base_places):  # all but the first, or the last, few
        return places[0] == base_places[0] and length - places[-1] == base_length - base_places[-1]
    step, base_step = _step(places, length), _step(base_places, base_length)
    return step is not None and step == base_step and places[0] == base_places[0]


def _places(row: Row) -> list[int]:
    return [bisect_left(row.alike, number) for number in row.members]


def _is_run(places: list[int]) -> bool:
    return places == list(range(places[0], places[-1] + 1))


def _step(places: list[int], length: int) -> int | None:
    """Return every how many-th place is taken up to the end; None: there is no such rule."""
    if len(places) < 2:
        return None
    step = places[1] - places[0]
    regular = list(range(places[0], length, step)) == places
    return step if regular and places[0] < step else None


def _pieces(row: Row) -> list[tuple[int, ...]] | None:
    """Return the members cut where their sizes change; None: some are unknown, others differ."""
    known = {size for size in row.sizes if all(size)}
    if len(known) <= 1:
        return [row.members]
    if len(known) < len(set(row.sizes)):
        return None
    pairs = zip(row.sizes, row.members, strict=True)
    return [tuple(n for _, n in piece) for _, piece in groupby(pairs, key=lambda pair: pair[0])]

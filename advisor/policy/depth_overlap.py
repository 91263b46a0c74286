r"""Along one index of a role: which of the base's blocks a block of the run stands for.

Where both containers hold the same blocks, for the block of its number. Else a row of n blocks is
compared with a row of m: both are the stretch [0, 1], cut in n and in m equal parts, and a part
stands for those that it overlaps.

What is cut is the row of the blocks that have the role, if all alike blocks have it, or if both
models leave out the same (every second layer has experts; the first one has a position bias). If
only some were chosen to be trained (adapters on the last layers), it is the row of all alike
blocks.

Blocks of other sizes are other layers (the first of a stage, the last of an MLP), so a row is cut
wherever a block's tensors change their sizes, and the pieces are compared one with one, if there
are as many.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from advisor.policy.block_rows import Row

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
        self.sized = own.sized and base.sized
        self.crossed = False
        self._pieces: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = [], []
        if self.same:
            self._comparable = _nested(own.cuts, base.cuts)
            return
        if own.cuts is None or base.cuts is None:
            self._comparable, self.crossed = False, True
            return
        everything = own.members == own.alike and base.members == base.alike
        by_members = everything or _leave_out_the_same(own, base)
        self._pieces = _pieces(own, by_members=by_members), _pieces(base, by_members=by_members)
        lengths, base_lengths = ([len(piece) for piece in pieces] for pieces in self._pieces)
        self._comparable = _fit(lengths, base_lengths)
        self.crossed = lengths != base_lengths

    def counterparts(self, number: int) -> Stretch | None:
        """Return what the block of a number stands for, or None if that cannot be told.

        The base need not have the role in all of these blocks.
        """
        if not self._comparable:
            return None
        if self.same:
            return [(number, 1.0, 1.0)]
        pieces, base_pieces = self._pieces
        which = next(i for i, piece in enumerate(pieces) if number <= piece[-1])
        row, base_row = pieces[which], base_pieces[which]
        stretch = overlaps(bisect_left(row, number), len(row), len(base_row))
        return [(base_row[i], share, span) for i, share, span in stretch]


def _pieces(row: Row, *, by_members: bool) -> list[tuple[int, ...]]:
    """Return the blocks that are compared, cut where sizes change."""
    pieces: list[list[int]] = [[]]
    cuts = sorted(row.cuts or ())
    passed = 0
    for number in row.members if by_members else row.alike:
        after = bisect_right(cuts, number)
        if after > passed and pieces[-1]:
            pieces.append([])
        passed = after
        pieces[-1].append(number)
    return [tuple(piece) for piece in pieces]


def _fit(lengths: list[int], base_lengths: list[int]) -> bool:
    """Return whether pieces can be compared one with one.

    There must be as many; and where one model begins, or ends, with a layer of its own kind, so
    must the other.
    """
    if len(lengths) != len(base_lengths):
        return False
    ends = [(lengths[i] == 1) == (base_lengths[i] == 1) for i in (0, -1)]
    return len(lengths) == 1 or all(ends)


def _nested(cuts: frozenset[int] | None, base_cuts: frozenset[int] | None) -> bool:
    """Return whether rows of the same blocks can be of the same kinds.

    Another width may make sizes differ that were equal, but not elsewhere.
    """
    return cuts is None or base_cuts is None or cuts <= base_cuts or base_cuts <= cuts


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
    return _period(places, length) == _period(base_places, base_length)


def _places(row: Row) -> list[int]:
    return [bisect_left(row.alike, number) for number in row.members]


def _is_run(places: list[int]) -> bool:
    return places == list(range(places[0], places[-1] + 1))


def _period(places: list[int], length: int) -> list[bool]:
    """Return the shortest pattern of taken places that fills a row again and again."""
    taken = set(places)
    row = [place in taken for place in range(length)]
    for period in range(1, length + 1):
        if length % period == 0 and row == row[:period] * (length // period):
            return row[:period]
    return row

r"""Which base blocks a block of the run corresponds to, along one index of a role.

If both containers hold the same block numbers, a block corresponds to the block of its own number.
Otherwise a row of n blocks is laid over a row of m: both stand for the interval [0, 1], cut into n
and into m equal parts, and each part corresponds to the parts that it overlaps.

The row that is cut consists of the blocks that have the role, if all similar blocks have it or if
both models leave it out in the same places (every second layer has experts; only the first has a
position bias). If only some blocks were chosen for training, such as adapters on the last layers,
it consists of all similar blocks.

Blocks of different sizes are different layers, such as the first of a stage or the last of an MLP.
So a row is split wherever the sizes of a block's tensors change. The pieces are compared one to
one, provided that both rows have the same number of pieces.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from advisor.policy.block_rows import Row

Overlaps = list[tuple[int, float, float]]
"""Base block numbers, each with the fraction of it that is covered and of the run's block."""


def overlaps(index: int, count: int, base_count: int) -> Overlaps:
    """Return (i, share, span) for each of the ``base_count`` parts of [0, 1] that a part overlaps.

    ``share`` is the overlapped fraction of base part i, ``span`` the same overlap as a fraction of
    part ``index``. Both are computed in integers, in units of ``1 / (count * base_count)``, so that
    integer ratios are exact.

    Args:
        index: The part, in [0, count).
        count: Number of parts that [0, 1] is cut into.
        base_count: Number of parts that the base cuts [0, 1] into.
    """
    start, stop = index * base_count, (index + 1) * base_count
    overlapped = range(start // count, -(-stop // count))
    lengths = [(i, min(stop, (i + 1) * count) - max(start, i * count)) for i in overlapped]
    return [(i, length / count, length / base_count) for i, length in lengths]


class RowOverlap:
    """Compares a row of the run with a row of the base.

    Args:
        own: The run's row.
        base: The base's row.

    Attributes:
        same: Whether both rows hold the same block numbers, so that blocks correspond one to one.
        resized: Whether the rows differ in their number of blocks.
        sized: Whether the sizes of all blocks of both rows are known.
    """

    def __init__(self, own: Row, base: Row) -> None:
        self.same = own.siblings == base.siblings
        self.sized = own.sized and base.sized
        self.resized = False
        self._pieces: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = [], []
        if self.same:
            self._comparable = _cuts_agree(own.cuts, base.cuts)
            return
        if own.cuts is None or base.cuts is None:
            self._comparable, self.resized = False, True
            return
        complete = own.members == own.alike and base.members == base.alike
        by_members = complete or _absent_in_the_same_places(own, base)
        self._pieces = _pieces(own, by_members=by_members), _pieces(base, by_members=by_members)
        lengths, base_lengths = ([len(piece) for piece in pieces] for pieces in self._pieces)
        self._comparable = _pieces_match(lengths, base_lengths)
        self.resized = lengths != base_lengths

    def counterparts(self, number: int) -> Overlaps | None:
        """Return the base blocks that a block corresponds to, or None if the rows do not compare.

        The base may lack the role in some of these blocks.

        Args:
            number: Number of the run's block.
        """
        if not self._comparable:
            return None
        if self.same:
            return [(number, 1.0, 1.0)]
        pieces, base_pieces = self._pieces
        which = next(i for i, piece in enumerate(pieces) if number <= piece[-1])
        piece, base_piece = pieces[which], base_pieces[which]
        found = overlaps(bisect_left(piece, number), len(piece), len(base_piece))
        return [(base_piece[i], share, span) for i, share, span in found]


def _pieces(row: Row, *, by_members: bool) -> list[tuple[int, ...]]:
    """Return the blocks that are compared, split where sizes change."""
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


def _pieces_match(lengths: list[int], base_lengths: list[int]) -> bool:
    """Return whether pieces can be compared one to one.

    Their number must be the same; and if one model begins or ends with a layer of its own kind, so
    must the other.
    """
    if len(lengths) != len(base_lengths):
        return False
    ends = [(lengths[i] == 1) == (base_lengths[i] == 1) for i in (0, -1)]
    return len(lengths) == 1 or all(ends)


def _cuts_agree(cuts: frozenset[int] | None, base_cuts: frozenset[int] | None) -> bool:
    """Return whether rows with the same block numbers can consist of the same kinds of blocks.

    With a different width, sizes that were equal may differ, so one row may have more cuts than the
    other; but the cuts of one must include those of the other.
    """
    return cuts is None or base_cuts is None or cuts <= base_cuts or base_cuts <= cuts


def _absent_in_the_same_places(own: Row, base: Row) -> bool:
    """Return whether two rows of different lengths leave the role out in the same places."""
    if own.members == own.alike or base.members == base.alike:
        return False  # one row has the role everywhere
    places, base_places = _places(own), _places(base)
    length, base_length = len(own.alike), len(base.alike)
    if len(places) == len(base_places):
        pairs = zip(places, base_places, strict=True)
        return all(a == b or length - a == base_length - b for a, b in pairs)
    if _is_contiguous(places) and _is_contiguous(base_places):  # all but the first or last few
        return places[0] == base_places[0] and length - places[-1] == base_length - base_places[-1]
    return _period(places, length) == _period(base_places, base_length)


def _places(row: Row) -> list[int]:
    """Return the positions of the blocks with the role among all similar blocks."""
    return [bisect_left(row.alike, number) for number in row.members]


def _is_contiguous(places: list[int]) -> bool:
    return places == list(range(places[0], places[-1] + 1))


def _period(places: list[int], length: int) -> list[bool]:
    """Return the shortest pattern of taken places that repeats over the whole row."""
    taken = set(places)
    row = [place in taken for place in range(length)]
    for period in range(1, length + 1):
        if length % period == 0 and row == row[:period] * (length // period):
            return row[:period]
    return row

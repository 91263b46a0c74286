"""Which writes may have happened by a time, from when operations began and returned."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping

from tests.chaos.history import Operation


class Order:
    """Bounds for the number of writes that had happened at a moment of the history.

    Args:
        writers: The operation that made each write, by the write's position.
        writes: Number of writes.
    """

    def __init__(self, writers: Mapping[int, Operation], writes: int) -> None:
        begun = sorted((each.invoked_ns, position) for position, each in writers.items())
        self._begun_ns = [invoked_ns for invoked_ns, _ in begun]
        # Before which write everything stops that was begun after a time.
        self._first_after = [writes]
        for _, position in reversed(begun):
            self._first_after.append(min(position, self._first_after[-1]))
        self._first_after.reverse()
        self._seen_ns: list[int] = []
        self._seen: list[int] = []

    def most(self, at_ns: int) -> int:
        """Return the most writes that can have happened by a time: none that was begun later."""
        return self._first_after[bisect_right(self._begun_ns, at_ns)]

    def fewest(self, at_ns: int) -> int:
        """Return the fewest writes that have happened by a time: all that were seen before."""
        i = bisect_left(self._seen_ns, at_ns)
        return self._seen[i - 1] if i else 0

    def saw(self, at_ns: int, writes: int) -> None:
        """Note that an answer that came at ``at_ns``, after all noted before, shows ``writes``."""
        self._seen_ns.append(at_ns)
        self._seen.append(max(writes, self._seen[-1] if self._seen else 0))


def by_return(operations: Iterable[Operation]) -> list[Operation]:
    """Return the operations in the order of their returns."""
    return sorted(operations, key=lambda each: each.returned_ns)

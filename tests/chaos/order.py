"""Bounds for the writes that happened by a time, from the start and end of operations."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping

from tests.chaos.history import Operation


class Order:
    """Bounds for the number of writes that had happened at a time of the history.

    Args:
        writers: The operation of each write by the position of the write.
        writes: Number of writes.
    """

    def __init__(self, writers: Mapping[int, Operation], writes: int) -> None:
        started = sorted((each.invoked_ns, position) for position, each in writers.items())
        self._started_ns = [invoked_ns for invoked_ns, _ in started]
        # The position of the first write that was started after a time.
        self._first_after = [writes]
        for _, position in reversed(started):
            self._first_after.append(min(position, self._first_after[-1]))
        self._first_after.reverse()
        self._seen_ns: list[int] = []
        self._seen: list[int] = []

    def most(self, at_ns: int) -> int:
        """Return the maximum number of writes by a time: those before any that started later."""
        return self._first_after[bisect_right(self._started_ns, at_ns)]

    def fewest(self, at_ns: int) -> int:
        """Return the minimum number of writes by a time: those that an earlier answer shows."""
        i = bisect_left(self._seen_ns, at_ns)
        return self._seen[i - 1] if i else 0

    def saw(self, at_ns: int, writes: int) -> None:
        """Note that an answer at ``at_ns`` shows ``writes``; call it in the order of answers."""
        self._seen_ns.append(at_ns)
        self._seen.append(max(writes, self._seen[-1] if self._seen else 0))


def by_return(operations: Iterable[Operation]) -> list[Operation]:
    """Return the operations in the order in which they returned."""
    return sorted(operations, key=lambda each: each.returned_ns)

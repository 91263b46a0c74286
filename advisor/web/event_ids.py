"""Ids of a run's events: times in milliseconds with a number, such as ``1767323045000-0``."""

from __future__ import annotations

from collections.abc import Iterator

from fslr.advisor.v1 import run_service_pb2

_NEWEST_MS = 1_000  # the last place is this long before the end, so that an event follows


def order_of(event_id: str) -> tuple[int, ...]:
    """Return the parts of an event's id as numbers; empty for the empty id."""
    return tuple(int(part) for part in event_id.split("-")) if event_id else ()


def is_after(event_id: str, other: str) -> bool:
    """Return whether an event's id comes after another one's; empty: before all."""
    return order_of(event_id) > order_of(other)


def latest(*event_ids: str) -> str:
    """Return the latest of some ids."""
    return max(event_ids, key=order_of)


def places_over(run: run_service_pb2.Run, count: int) -> Iterator[str]:
    """Yield ids after which to read single events, evenly over the time of a run.

    Args:
        run: The run.
        count: Number of ids, at least 2.

    Yields:
        The ids. The first one is empty, since the oldest event may have the time of the run's start
        as its id.
    """
    start, end = run.create_time.ToMilliseconds(), run.update_time.ToMilliseconds()
    yield ""
    for i in range(1, count):
        yield f"{start + max(end - start - _NEWEST_MS, 0) * i // (count - 1)}-0"

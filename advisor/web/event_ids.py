"""Ids of a run's events: times in milliseconds with a number, such as ``1767323045000-0``."""

from __future__ import annotations


def order_of(event_id: str) -> tuple[int, ...]:
    """Return the parts of an event's id as numbers; empty for the empty id."""
    return tuple(int(part) for part in event_id.split("-")) if event_id else ()


def is_after(event_id: str, other: str) -> bool:
    """Return whether an event's id comes after another one's; empty: before all."""
    return order_of(event_id) > order_of(other)


def latest(*event_ids: str) -> str:
    """Return the latest of some ids."""
    return max(event_ids, key=order_of)

"""Times in Redis: milliseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def to_ms(time: datetime) -> int:
    """Return a time in milliseconds since 1970."""
    return round(time.timestamp() * 1000)


def from_ms(milliseconds: int) -> datetime:
    """Return the UTC time of milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)

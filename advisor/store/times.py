"""Times as Redis keeps them: milliseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def to_ms(time: datetime) -> int:
    """Return a time in milliseconds."""
    return round(time.timestamp() * 1000)


def from_ms(milliseconds: int) -> datetime:
    """Return the time that milliseconds stand for, UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)

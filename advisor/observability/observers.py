"""The interface through which commands of Redis are observed."""

from __future__ import annotations

from typing import Protocol


class CommandObserver(Protocol):
    """Called after each command of Redis."""

    def __call__(self, command: str, seconds: float, *, failed: bool) -> None:
        """Record a command: its name, its duration and whether it raised."""

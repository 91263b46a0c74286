"""What a check found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad it is; the greater, the worse."""

    OK = 0
    """As it should be."""
    UNKNOWN = 1
    """It could not be looked at."""
    WARNING = 2
    """It works, and something may be lost or break."""
    PROBLEM = 3
    """Jobs are refused, data is lost, or strangers come in."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        check: What was looked at, such as ``redis persistence``.
        level: How bad it is.
        found: What was found, in a sentence without a full stop.
        remedy: What to do; empty where nothing is to do.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> Level:
    """Return the greatest level; of no findings, ``OK``."""
    return max((finding.level for finding in findings), default=Level.OK)

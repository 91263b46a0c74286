"""Findings: what a check found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """The severity of a finding; higher is worse."""

    OK = 0
    """Nothing to do."""
    UNKNOWN = 1
    """It could not be checked."""
    WARNING = 2
    """It works, but something may be lost or stop working."""
    PROBLEM = 3
    """Jobs are refused, data can be lost, or anyone can get access."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        check: What was checked, such as ``redis persistence``.
        level: The severity.
        found: What was found, in a sentence without a full stop.
        remedy: What to do; empty if there is nothing to do.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> Level:
    """Return the highest level, or ``OK`` without findings."""
    return max((finding.level for finding in findings), default=Level.OK)

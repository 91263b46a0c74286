"""What a history can break."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

COUNTS = ("lost", "doubled", "wrong_version", "non_finite", "blocked")


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken.

    Attributes:
        count: Under which of :data:`COUNTS` it counts: ``lost``: an acknowledged write, or its
            effect, is not there; ``doubled``: something happened that nobody asked for, or more
            often than it was asked for; ``wrong_version``: an answer that no state of the registry
            in its time gives; ``non_finite``: multipliers that are not finite or out of bounds;
            ``blocked``: somebody waited longer than the deadline.
        what: What happened, in words.
    """

    count: str
    what: str


def counted(violations: Iterable[Violation]) -> dict[str, int]:
    """Return how many violations there are of each count."""
    counts = dict.fromkeys(COUNTS, 0)
    for violation in violations:
        counts[violation.count] += 1
    return counts

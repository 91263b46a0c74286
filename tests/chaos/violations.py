"""Violations of the promises that a history is checked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

COUNTS = ("lost", "doubled", "wrong_version", "non_finite", "blocked")


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken.

    Attributes:
        count: The kind, one of :data:`COUNTS`. ``lost``: an acknowledged write or its effect is
            missing; ``doubled``: a write was not requested, or took effect more than once;
            ``wrong_version``: no state of the registry during the call gives the answer;
            ``non_finite``: multipliers are not finite or out of bounds; ``blocked``: a client or a
            training step waited longer than the deadline.
        what: A description.
    """

    count: str
    what: str


def counted(violations: Iterable[Violation]) -> dict[str, int]:
    """Return the number of violations of each kind."""
    counts = dict.fromkeys(COUNTS, 0)
    for violation in violations:
        counts[violation.count] += 1
    return counts

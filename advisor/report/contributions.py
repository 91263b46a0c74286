"""What each layer contributes to the change of the outputs: shares that sum to 100%."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from advisor.policy.arrays import Floats
from advisor.report.parts import Parts
from advisor.report.points import Point

RECENT_POINTS = 10
"""Number of measurements over which shares are averaged: those of a single one are noisy."""


@dataclass(frozen=True, slots=True)
class ContributionRow:
    """The contribution of a part.

    Attributes:
        part: The part's name; empty: the rest.
        groups: Number of its groups.
        share: Mean of its shares in the squared total rate, a signed ratio; the sum is 1.
        percent: The share in whole percent, rounded so that the sum is 100.
        reference_percent: The share in whole percent if each group had the rate of its reference;
            None: not known.
    """

    part: str
    groups: int
    share: float
    percent: int
    reference_percent: int | None = None


def contributions(
    parts: Parts,
    shares: Sequence[Floats | None],
    references: Sequence[Floats | None] = (),
    *,
    most: int = 12,
) -> list[ContributionRow]:
    """Return the largest contributions, and the rest in one row.

    Args:
        parts: The parts.
        shares: The shares of each part at the last measurements, oldest first; None: not reported.
        references: The shares at the rates of the references, likewise; NaN: a part without a
            reference. Default: not known.
        most: Maximum number of rows, at least 2.

    Returns:
        Rows in the order of the parts, the rest last; empty if no share was reported.
    """
    known = [each for each in shares if each is not None][-RECENT_POINTS:]
    if not known:
        return []
    means = np.mean(known, axis=0)
    means = means / means.sum() if means.sum() else means
    counts = parts.group_counts
    kept = largest_parts(means, most)
    rest = np.setdiff1d(np.arange(len(means)), kept)
    values = [float(means[i]) for i in kept]
    names = [parts.names[i] for i in kept]
    groups = [counts[i] for i in kept]
    if rest.size:
        values.append(float(means[rest].sum()))
        names.append("")
        groups.append(sum(counts[i] for i in rest))
    percents = whole_percents(values)
    known_references = [each for each in references if each is not None][-RECENT_POINTS:]
    reference_percents: list[int | None] = [None] * len(values)
    if known_references:
        means = np.mean(known_references, axis=0)
        at_reference = [float(means[i]) for i in kept]
        if rest.size:
            at_reference.append(float(means[rest].sum()))
        reference_percents = _known_percents(at_reference)
    rows = zip(names, groups, values, percents, reference_percents, strict=True)
    return [ContributionRow(*row) for row in rows]


def largest_parts(values: Floats, most: int) -> list[int]:
    """Return the indices of the parts that are shown by themselves, in order.

    Args:
        values: A value for each part; those of the largest magnitude are kept.
        most: Maximum number of parts, the rest counted as one.
    """
    if len(values) <= most:
        return list(range(len(values)))
    found: list[int] = sorted(np.argsort(-np.abs(values), kind="stable")[: most - 1].tolist())
    return found


def role_contributions(parts: Parts, points: Sequence[Point]) -> list[ContributionRow]:
    """Return the contributions of a run's roles over its last measurements."""
    shares, references = role_shares_of(points)
    return contributions(parts, shares, references)


def role_shares_of(
    points: Sequence[Point],
) -> tuple[list[Floats | None], list[Floats | None]]:
    """Return the shares of the roles at each point, and those at the rates of the references."""
    return (
        [point.role_shares for point in points],
        [point.role_reference_shares for point in points],
    )


def block_contributions(parts: Parts, points: Sequence[Point]) -> list[ContributionRow]:
    """Return the contributions of a run's blocks over its last measurements."""
    return contributions(parts, [point.block_shares for point in points], most=24)


def whole_percents(shares: Sequence[float]) -> list[int]:
    """Return shares in whole percent whose sum is that of the shares, rounded.

    Each is rounded down or up; those with the largest remainders are rounded up.

    Args:
        shares: Ratios; they may be negative.
    """
    percents = [100 * share for share in shares]
    found = [int(np.floor(percent)) for percent in percents]
    missing = round(sum(percents)) - sum(found)
    by_remainder = sorted(range(len(found)), key=lambda i: found[i] - percents[i])
    for i in by_remainder[:missing]:
        found[i] += 1
    return found


def _known_percents(shares: Sequence[float]) -> list[int | None]:
    """Return shares in whole percent as :func:`whole_percents` does; None for NaN."""
    percents = iter(whole_percents([share for share in shares if not np.isnan(share)]))
    return [None if np.isnan(share) else next(percents) for share in shares]

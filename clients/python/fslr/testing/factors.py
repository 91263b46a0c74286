"""Factors that a test gives: one for all groups, one for each, or one by pattern of names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from fslr.advisor.v1 import advisor_service_pb2 as pb

Factors = float | Iterable[float] | Mapping[str, float]
"""One factor for all groups; one for each group in layout order; or one by pattern of names.

A pattern is a shell pattern such as ``blocks.*.weight``, and the first that matches a group's name
applies. Groups that no pattern matches are treated as groups without a counterpart in the profile.
"""
Script = Callable[[pb.Measurement], Factors]
"""Returns the factors to answer a measurement with."""


def by_step(steps: Mapping[int, Factors]) -> Script:
    """Return a script that changes its factors at given steps.

    Args:
        steps: The factors from a step on, such as ``{0: 1.0, 100: {"head.*": 0.5}}``.

    Raises:
        ValueError: There are no factors for step 0.
    """
    if 0 not in steps:
        raise ValueError(f"the steps are {sorted(steps)}; say which multipliers hold from step 0")

    def script(measurement: pb.Measurement) -> Factors:
        return steps[max(step for step in steps if step <= measurement.step)]

    return script


def values_of(factors: Factors) -> list[float]:
    """Return the values of factors, in the order in which they are given."""
    if isinstance(factors, Mapping):
        return list(factors.values())
    return list(factors) if isinstance(factors, Iterable) else [factors]


def check_range(what: str, values: Sequence[float], *, can_be_zero: bool) -> None:
    """Check the range of factors.

    Args:
        what: What one of them is called in the message, with its article.
        values: The factors.
        can_be_zero: Whether 0 is in the range.

    Raises:
        ValueError: A value is out of range.
    """
    for value in values:
        if not (math.isfinite(value) and (value > 0 or (can_be_zero and value == 0))):
            least = "at least 0" if can_be_zero else "above 0"
            raise ValueError(f"{what} is {value}; it must be finite and {least}")


def factors_of(given: Factors, names: Sequence[str], what: str) -> list[float | None]:
    """Return the factor of each group; None where no pattern matches.

    Args:
        given: The factors.
        names: The groups' names, in layout order.
        what: What the factors are called in the message.

    Raises:
        ValueError: There are more or fewer factors than groups, or a pattern matches no group.
    """
    if isinstance(given, Mapping):
        for pattern in given:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(
                    f"the pattern {pattern!r} of the {what} matches none of the {len(names)} "
                    f"groups ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
                )
        return [
            next((float(v) for pattern, v in given.items() if fnmatchcase(name, pattern)), None)
            for name in names
        ]
    if isinstance(given, Iterable):
        values: list[float | None] = [float(value) for value in given]
        if len(values) != len(names):
            raise ValueError(
                f"there are {len(values)} {what} and {len(names)} groups; give one for each group, "
                "or patterns of their names"
            )
        return values
    return [float(given)] * len(names)

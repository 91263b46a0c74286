"""Advice in a few words, for log lines and for ``repr``."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fslr.advisor.v1 import policy_pb2


def outcome_words(outcome: int) -> str:
    """Return an outcome in a few words, such as ``held zero rate``, or its number if it is new."""
    known = policy_pb2.Outcome.DESCRIPTOR.values_by_number.get(outcome)
    if known is None:
        return str(outcome)
    return str(known.name).removeprefix("OUTCOME_").lower().replace("_", " ")


def is_held(outcome: int) -> bool:
    """Return whether a group with this outcome keeps its multiplier whatever is measured."""
    return outcome == policy_pb2.OUTCOME_UNMATCHED or outcome_words(outcome).startswith("held ")


def count_of(count: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 group`` or ``12 groups``.

    Args:
        count: The number.
        noun: The noun in the singular; its plural ends in s.
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def held_words(outcomes: Sequence[int]) -> str:
    """Return how many groups are held and why, such as ``3 held (2 zero rate, 1 unmatched)``.

    Args:
        outcomes: The outcome of each group.
    """
    reasons = Counter(
        outcome_words(outcome).removeprefix("held ") for outcome in outcomes if is_held(outcome)
    )
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{reasons.total()} held ({listed})" if reasons else "none held"


def range_words(multipliers: Sequence[float]) -> str:
    """Return the range of multipliers, such as ``0.012 to 1.2``.

    Args:
        multipliers: One for each group, at least one.
    """
    low, high = format(min(multipliers), ".3g"), format(max(multipliers), ".3g")
    return low if low == high else f"{low} to {high}"


def short_name(resource_name: str) -> str:
    """Return the last segment of a resource name."""
    return resource_name.rsplit("/", 1)[-1]


def mask_label(mask: Any) -> str:
    """Return what profiles and measurements call a mask: the key, or the function's name.

    Args:
        mask: The mask; None gives the empty string.
    """
    if mask is None or isinstance(mask, str):
        return mask or ""
    while isinstance(mask, functools.partial):
        mask = mask.func
    named = mask if hasattr(mask, "__qualname__") else type(mask)
    # Where a function is defined does not matter for what it does.
    return str(named.__qualname__).rpartition("<locals>.")[2]

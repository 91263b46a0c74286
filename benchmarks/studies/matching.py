"""Ideas that the service does not have: what they change in answers and in profiles. Pure."""

from __future__ import annotations

import math

import numpy as np

from fslr.advisor.v1 import advisor_service_pb2, profile_pb2
from fslr.torch import RateEstimate

_MOST_FACTOR = 4.0  # of what an idea may change; beyond it the measurement is not to be believed
_SMALLEST = 1e-30


def match_total(
    answer: advisor_service_pb2.RecommendLRResponse,
    estimate: RateEstimate,
    totals: tuple[tuple[int, float], ...],
) -> advisor_service_pb2.RecommendLRResponse:
    """Scale all multipliers alike, so that the whole step moves the outputs as the base's did.

    The groups' rates do not say how their movements add up. The Gram matrix does: with multipliers
    ``m`` the squared total rate over the learning rate is ``m G m``.

    Args:
        answer: The service's answer.
        estimate: The measurement behind it, with its Gram matrix.
        totals: The base's total rates over its learning rate, at steps.
    """
    if estimate.gram is None or not totals:
        return answer
    multipliers = np.array(answer.multipliers)
    squared = float(multipliers @ estimate.gram @ multipliers)
    wanted = total_at(totals, answer.step)
    # An unbiased estimate of something small may be negative, and what did not move is no aim.
    if squared <= 0 or wanted <= 2 * _SMALLEST:
        return answer
    factor = min(max(wanted / math.sqrt(squared), 1 / _MOST_FACTOR), _MOST_FACTOR)
    changed = type(answer)()
    changed.CopyFrom(answer)
    changed.multipliers[:] = factor * multipliers
    return changed


def scale_all(
    factor: float,
    answer: advisor_service_pb2.RecommendLRResponse,
    _estimate: RateEstimate,
    _totals: tuple[tuple[int, float], ...],
) -> advisor_service_pb2.RecommendLRResponse:
    """Scale all multipliers alike.

    Args:
        factor: By what.
        answer: The service's answer.
    """
    changed = type(answer)()
    changed.CopyFrom(answer)
    changed.multipliers[:] = factor * np.array(answer.multipliers)
    return changed


def total_at(totals: tuple[tuple[int, float], ...], step: int) -> float:
    """Return the total at a step, straight lines in the logarithm between those recorded.

    Args:
        totals: At rising steps, at least 0.
        step: The step; before the first and after the last, theirs hold.
    """
    steps, values = zip(*totals, strict=True)
    return float(np.exp(np.interp(step, steps, np.log(np.maximum(values, _SMALLEST)))))


def extrapolated(
    smaller: profile_pb2.ProfileContent, base: profile_pb2.ProfileContent, exponent: float
) -> profile_pb2.ProfileContent:
    """Return a profile for a third size: rates go on as they went from a smaller model to the base.

    Args:
        smaller: A profile of the same layout, from a model smaller than the base.
        base: The base's.
        exponent: Logarithm of (third size / base) over that of (base / smaller).

    Raises:
        ValueError: The layouts or the steps differ.
    """
    names = [[group.name for group in content.layout.groups] for content in (smaller, base)]
    steps = [[point.step for point in content.points] for content in (smaller, base)]
    if names[0] != names[1] or steps[0] != steps[1]:
        raise ValueError("profiles of other layouts or steps cannot be extrapolated")
    found = profile_pb2.ProfileContent()
    found.CopyFrom(base)
    for point, small in zip(found.points, smaller.points, strict=True):
        rates, before = np.array(point.unit_rates), np.array(small.unit_rates)
        known = (rates > _SMALLEST) & (before > _SMALLEST)
        factors = np.ones_like(rates)
        factors[known] = (rates[known] / before[known]) ** exponent
        point.unit_rates[:] = rates * np.clip(factors, 1 / _MOST_FACTOR, _MOST_FACTOR)
    return found

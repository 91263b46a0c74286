"""Ideas that the service does not implement, as pure functions of answers and profiles."""

from __future__ import annotations

import math

import numpy as np

from fslr.advisor.v1 import advisor_service_pb2, profile_pb2
from fslr.torch import RateEstimate

_MAX_FACTOR = 4.0  # largest change by an idea; a larger one would rest on measurement noise
_MIN_RATE = 1e-30


def match_total(
    answer: advisor_service_pb2.RecommendLRResponse,
    estimate: RateEstimate,
    totals: tuple[tuple[int, float], ...],
) -> advisor_service_pb2.RecommendLRResponse:
    """Scale all multipliers by one factor so that the total rate matches the base's.

    The rates of the groups do not say how their output changes add up; the Gram matrix ``G`` does:
    with multipliers ``m``, the square of the total rate per learning rate is ``m G m``.

    Args:
        answer: The service's answer.
        estimate: The measurement behind it, with its Gram matrix.
        totals: Steps, with the base's total rate per learning rate at each.
    """
    if estimate.gram is None or not totals:
        return answer
    multipliers = np.array(answer.multipliers)
    squared = float(multipliers @ estimate.gram @ multipliers)
    wanted = total_at(totals, answer.step)
    # An unbiased estimate of a small square may be negative, and a base at rest sets no aim.
    if squared <= 0 or wanted <= 2 * _MIN_RATE:
        return answer
    factor = min(max(wanted / math.sqrt(squared), 1 / _MAX_FACTOR), _MAX_FACTOR)
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
    """Scale all multipliers by one factor.

    Args:
        factor: The factor.
        answer: The service's answer.
    """
    changed = type(answer)()
    changed.CopyFrom(answer)
    changed.multipliers[:] = factor * np.array(answer.multipliers)
    return changed


def total_at(totals: tuple[tuple[int, float], ...], step: int) -> float:
    """Return the total rate at a step, interpolated linearly in its logarithm.

    Args:
        totals: Increasing steps, with the total rate at each (at least 0).
        step: The step. Before the first and after the last one, the total rate is constant.
    """
    steps, values = zip(*totals, strict=True)
    return float(np.exp(np.interp(step, steps, np.log(np.maximum(values, _MIN_RATE)))))


def extrapolated(
    smaller: profile_pb2.ProfileContent, base: profile_pb2.ProfileContent, exponent: float
) -> profile_pb2.ProfileContent:
    """Return a profile for a third size, extrapolated from a smaller model and the base.

    Args:
        smaller: A profile with the same layout, of a model smaller than the base.
        base: The profile of the base.
        exponent: log(third size / base) / log(base / smaller).

    Raises:
        ValueError: The layouts or the steps of the profiles differ.
    """
    names = [[group.name for group in content.layout.groups] for content in (smaller, base)]
    steps = [[point.step for point in content.points] for content in (smaller, base)]
    if names[0] != names[1] or steps[0] != steps[1]:
        raise ValueError(
            "the profiles have different layouts or steps; record both with the same ones"
        )
    found = profile_pb2.ProfileContent()
    found.CopyFrom(base)
    for point, small in zip(found.points, smaller.points, strict=True):
        rates, before = np.array(point.unit_rates), np.array(small.unit_rates)
        known = (rates > _MIN_RATE) & (before > _MIN_RATE)
        factors = np.ones_like(rates)
        factors[known] = (rates[known] / before[known]) ** exponent
        point.unit_rates[:] = rates * np.clip(factors, 1 / _MAX_FACTOR, _MAX_FACTOR)
    return found

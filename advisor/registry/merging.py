r"""Merges recordings of one training with different seeds into one profile.

Rates are merged as geometric means, since errors of rates are factors. The spread is the standard
deviation of their logarithms between recordings, a ratio. A recording may itself be a merged
profile: from :math:`n_k` recordings with mean logarithm :math:`m_k` and spread :math:`s_k` follow
the mean and the spread of all recordings together,

.. math:: M = \sum n_k m_k / N, \quad (N - 1) s^2 = \sum (n_k - 1) s_k^2 + n_k (m_k - M)^2 .

A rate that is zero in at least half of the recordings is zero; otherwise its zeros are left out.
The merged relative error is :math:`\sqrt{\sum (n_k e_k)^2} / N` over the recordings with a positive
rate. It does not include the spread between seeds, and it is unknown (0) if one of the errors is.

RMS of weights and of updates are merged like rates, if all recordings have them. The merged initial
RMS of a tensor is the root mean square of those of the recordings.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.policy import InvalidValueError, shown
from advisor.policy.arrays import Floats
from advisor.registry.profiles import ProfileContent

_SAME = (
    *("base_learning_rate", "total_steps", "policy", "policy_name", "aliases", "labels"),
    *("excludes_weight_decay", "mask"),
)
_SAME_PROVENANCE = (
    *(
        "model",
        "optimizer",
        "batch_size",
        "width",
        "depth",
        "dataset",
        "method",
        "loss_name",
        "commit",
    ),
)


def merge(contents: Sequence[ProfileContent]) -> ProfileContent:
    """Return one profile made of several recordings; docs and other texts are those of the first.

    Args:
        contents: At least 2 recordings with equal layouts, steps, schedules and provenance.

    Raises:
        InvalidValueError: There are too few recordings, two hold the same rates, or they differ in
            more than the seed.
    """
    if len(contents) < 2:
        raise InvalidValueError("recordings", f"{len(contents)}, but at least 2 are needed")
    first = contents[0]
    for i, other in enumerate(contents[1:], start=1):
        _check_alike(i, first, other)
        for j, before in enumerate(contents[:i]):
            if np.array_equal(before.unit_rates, other.unit_rates):
                raise InvalidValueError(
                    f"recordings[{i}]",
                    f"has the same rates as recordings[{j}]; merge recordings of different seeds",
                )
    counts = np.array([max(c.header.provenance.recordings, 1) for c in contents], dtype=np.float64)
    merged, spreads, errors = _merged(contents, counts[:, None, None])
    provenance = dataclasses.replace(first.header.provenance, recordings=int(counts.sum()))
    return dataclasses.replace(
        first,
        header=dataclasses.replace(
            first.header,
            provenance=provenance,
            layout=first.header.layout.with_initial_rms(_initial_rms(contents, counts)),
        ),
        unit_rates=merged.astype(np.float32),
        relative_errors=errors.astype(np.float32),
        coherences=_mean([content.coherences for content in contents], counts),
        spreads=spreads.astype(np.float32),
        weight_rms=_log_mean([content.weight_rms for content in contents], counts),
        update_rms=_log_mean([content.update_rms for content in contents], counts),
    )


def _merged(contents: Sequence[ProfileContent], counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Return geometric means, spreads and relative errors, each of shape [points, groups]."""
    rates = np.stack([content.unit_rates.astype(np.float64) for content in contents])
    errors = np.stack([content.relative_errors.astype(np.float64) for content in contents])
    own = np.stack([
        np.zeros(content.unit_rates.shape) if content.spreads is None else content.spreads
        for content in contents
    ]).astype(np.float64)
    weights = np.where(rates > 0, counts, 0.0)
    total = np.maximum(weights.sum(axis=0), 1)
    logs = np.log(np.where(rates > 0, rates, 1.0))
    means = (weights * logs).sum(axis=0) / total
    inside = np.maximum(weights - 1, 0) * np.square(own)
    between = weights * np.square(logs - means)
    spreads = np.sqrt((inside + between).sum(axis=0) / np.maximum(total - 1, 1))
    known = ((errors > 0) | (weights == 0)).all(axis=0)
    merged_errors = np.where(known, np.sqrt(np.square(weights * errors).sum(axis=0)) / total, 0.0)
    there = 2 * weights.sum(axis=0) > counts.sum()
    return (
        np.where(there, np.exp(means), 0.0),
        np.where(there, spreads, 0.0),
        np.where(there, merged_errors, 0.0),
    )


def _log_mean(
    arrays: Sequence[NDArray[np.float32] | None], counts: Floats
) -> NDArray[np.float32] | None:
    """Return the geometric mean of the positive entries; 0 where at least half are zero."""
    known = [array for array in arrays if array is not None]
    if len(known) < len(arrays):
        return None
    values = np.stack(known).astype(np.float64)
    weights = np.where(values > 0, counts[:, None, None], 0.0)
    total = weights.sum(axis=0)
    logs = np.log(np.where(values > 0, values, 1.0))
    means = np.exp((weights * logs).sum(axis=0) / np.maximum(total, 1))
    return np.where(2 * total > counts.sum(), means, 0.0).astype(np.float32)


def _initial_rms(contents: Sequence[ProfileContent], counts: Floats) -> list[float | None]:
    """Return the initial RMS of each group over all recordings; empty if one of them has none."""
    rows = [content.header.layout.initial_rms for content in contents]
    if not all(rows):
        return []
    return [
        None
        if None in column
        else math.sqrt(np.average(np.square(np.array(column, dtype=np.float64)), weights=counts))
        for column in zip(*rows, strict=True)
    ]


def _mean(
    arrays: Sequence[NDArray[np.float32] | None], counts: Floats
) -> NDArray[np.float32] | None:
    known = [array for array in arrays if array is not None]
    if len(known) < len(arrays):
        return None
    mean = np.average(np.stack(known).astype(np.float64), axis=0, weights=counts)
    return np.asarray(mean, dtype=np.float32)


def _check_alike(index: int, first: ProfileContent, other: ProfileContent) -> None:
    pairs: list[tuple[str, Any, Any]] = [
        ("the layout", first.header.layout, other.header.layout),
        ("the list of recorded steps", first.steps.tolist(), other.steps.tolist()),
        ("the schedule of learning rates", _listed(first), _listed(other)),
    ]
    pairs += [(name, getattr(first.header, name), getattr(other.header, name)) for name in _SAME]
    pairs += [
        (name, getattr(first.header.provenance, name), getattr(other.header.provenance, name))
        for name in _SAME_PROVENANCE
    ]
    for what, one, two in pairs:
        if one != two:
            raise InvalidValueError(
                f"recordings[{index}]",
                f"{what.replace('_', ' ')} differs from the first recording's: {shown(two)}, not "
                f"{shown(one)}; merge recordings of one training that differ only in the seed",
            )


def _listed(content: ProfileContent) -> list[float] | None:
    return None if content.learning_rates is None else content.learning_rates.tolist()

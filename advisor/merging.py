r"""One profile of several recordings of the same training with other seeds.

Rates are merged as geometric means, for errors of rates are factors; the spread is the standard
deviation of their logarithms between recordings, a ratio. A rate that is zero in at least half of
the recordings is zero, else the zeros are left out. The merged relative error is
:math:`\sqrt{\sum e_k^2} / n`, which leaves the spread between seeds to the spread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.policy import InvalidValueError, shown
from advisor.profiles import ProfileContent

_SAME = ("base_learning_rate", "total_steps", "policy", "aliases")
_SAME_PROVENANCE = ("optimizer", "batch_size", "width", "depth", "dataset", "method", "loss")


def merge(contents: Sequence[ProfileContent]) -> ProfileContent:
    """Return one profile of several recordings; docs and other words are those of the first.

    Args:
        contents: The recordings, at least 2, of equal layouts, steps and circumstances.

    Raises:
        InvalidValueError: There are too few, or they differ in what must be the same.
    """
    if len(contents) < 2:
        raise InvalidValueError("recordings", f"{len(contents)}, but at least 2 are needed")
    first = contents[0]
    for i, other in enumerate(contents[1:], start=1):
        _check_alike(i, first, other)
    rates = np.stack([content.unit_rates.astype(np.float64) for content in contents])
    merged, spreads = _geometric(rates)
    errors = np.stack([content.relative_errors.astype(np.float64) for content in contents])
    provenance = dataclasses.replace(
        first.header.provenance,
        recordings=sum(max(content.header.provenance.recordings, 1) for content in contents),
    )
    return dataclasses.replace(
        first,
        header=dataclasses.replace(first.header, provenance=provenance),
        unit_rates=merged.astype(np.float32),
        relative_errors=(np.sqrt(np.square(errors).sum(axis=0)) / len(contents)).astype(np.float32),
        coherences=_mean([content.coherences for content in contents]),
        spreads=spreads.astype(np.float32),
    )


def _geometric(
    rates: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return geometric means and standard deviations of logarithms over the first axis."""
    positive = rates > 0
    counts = positive.sum(axis=0)
    logs = np.log(np.where(positive, rates, 1.0))
    means = logs.sum(axis=0) / np.maximum(counts, 1)
    squares = np.where(positive, np.square(logs - means), 0.0).sum(axis=0)
    there = 2 * counts > len(rates)
    spreads = np.sqrt(squares / np.maximum(counts - 1, 1))
    return np.where(there, np.exp(means), 0.0), np.where(there, spreads, 0.0)


def _mean(arrays: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    known = [array for array in arrays if array is not None]
    if len(known) < len(arrays):
        return None
    mean: NDArray[np.float64] = np.stack(known).astype(np.float64).mean(axis=0)
    return mean.astype(np.float32)


def _check_alike(index: int, first: ProfileContent, other: ProfileContent) -> None:
    pairs: list[tuple[str, Any, Any]] = [
        ("the layout", first.header.layout, other.header.layout),
        ("the list of recorded steps", first.steps.tolist(), other.steps.tolist()),
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
                f"{shown(one)}; merge recordings of one training that differ by the seed alone",
            )

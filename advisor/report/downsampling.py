"""Fewer points of a series for a picture, without losing its peaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def kept_points(
    steps: Sequence[float], series: Sequence[Sequence[float]], buckets: int
) -> npt.NDArray[np.intp]:
    """Return which points of some series to draw, in order.

    The range of the steps is divided into equal buckets, such as the pixels of a picture. Of each
    series, the points with the smallest and the largest value of each bucket are kept, and so are
    the first and the last point. Nothing is drawn by chance, so the same points give the same
    picture.

    Args:
        steps: Position of each point. Where a training was resumed from a checkpoint, they go back.
        series: Values of each series at these positions; NaN: no value.
        buckets: Number of buckets, at least 1.

    Returns:
        The indices of the points, at most ``2 * buckets * len(series) + 2`` of them in each stretch
        of ascending steps. All points, if there are no more than that.

    Raises:
        ValueError: ``buckets`` is below 1, or a series has another length than ``steps``.
    """
    count = len(steps)
    if buckets < 1:
        raise ValueError(f"buckets is {buckets}; it must be at least 1")
    for values in series:
        if len(values) != count:
            raise ValueError(f"a series has {len(values)} values, but there are {count} steps")
    if count <= 2 * buckets * len(series) + 2:
        return np.arange(count)
    at = np.asarray(steps, np.float64)
    width = (at.max() - at.min()) / buckets or 1.0
    bucket = np.minimum((at - at.min()) / width, buckets - 1).astype(np.intp)
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    kept = [np.array([0, count - 1])]
    for values in series:
        found = np.asarray(values, np.float64)
        kept += [_first(np.minimum, found, starts), _first(np.maximum, found, starts)]
    indices: npt.NDArray[np.intp] = np.unique(np.concatenate(kept))
    return indices


def _first(
    extreme: np.ufunc, values: npt.NDArray[np.float64], starts: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Return where each bucket first has its smallest or largest value; NaN is left out.

    Args:
        extreme: ``numpy.minimum`` or ``numpy.maximum``.
        values: The values.
        starts: Index of the first point of each bucket.
    """
    neutral = np.inf if extreme is np.minimum else -np.inf
    known = np.where(np.isnan(values), neutral, values)
    best = extreme.reduceat(known, starts)
    lengths = np.diff(starts, append=len(values))
    hits = np.flatnonzero((known == np.repeat(best, lengths)) & ~np.isnan(values))
    owners = np.searchsorted(starts, hits, side="right")
    _, firsts = np.unique(owners, return_index=True)
    found: npt.NDArray[np.intp] = hits[firsts]
    return found

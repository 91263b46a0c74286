"""The history of a run in columns, with curves that are small enough for a page.

A page shows roles and blocks. A measurement takes at most 400 bytes here, however many groups it
has, and curves have as many points as a chart has pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from advisor.policy.arrays import Floats
from advisor.report.parts import Parts
from advisor.report.points import Point, PointReader

MAX_ROLES = 12
"""Maximum number of roles with a curve of their own; the smaller ones share one."""
MAX_BLOCKS = 48
"""Maximum number of rows in a heat map of blocks; neighbors share a row if there are more."""

SCALARS = (
    *("step", "loss", "learning_rate", "total_rate", "reference_total_rate"),
    *("reference_low", "reference_high", "linearity_error", "relative_error"),
    *("high_relative_error", "min_multiplier", "max_multiplier"),
)
"""The numbers of a :class:`~advisor.report.points.Point` that have a column each; NaN: none."""
ROLE_COLUMNS = ("role_shares", "role_multipliers", "role_learning_rates")
"""The columns with a number for each shown role."""
_GEOMETRIC = {"role_multipliers", "role_learning_rates"}

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class _Merged:
    """Parts, of which some are shown as one.

    Attributes:
        names: What is shown, in order; empty: the rest.
        targets: Index in ``names`` for each part.
        counts: Number of groups of each part.
    """

    names: tuple[str, ...]
    targets: Indices
    counts: Floats

    def sums(self, values: Floats) -> Floats:
        """Return the sums of the parts' values."""
        found: Floats = np.bincount(self.targets, values, len(self.names)).astype(np.float64)
        return found

    def geometric_means(self, values: Floats) -> Floats:
        """Return the geometric means over groups of the parts' geometric means."""
        with np.errstate(divide="ignore"):
            weighted = self.sums(self.counts * np.log(values))
        means: Floats = np.exp(weighted / self.sums(self.counts))
        return means


class RunColumns:
    """The measurements of a run in columns.

    Args:
        reader: The reader of the run, whose points are appended.

    Attributes:
        roles: The shown roles; empty: the smaller ones together.
        blocks: The shown blocks from input to output, such as ``blocks.3``, or ``blocks.2 … 3`` for
            several.
        last_id: The id of the last measurement; empty: there is none.
    """

    def __init__(self, reader: PointReader) -> None:
        self._roles = _largest(reader.roles, reader.roles.sums(reader.groups.sizes))
        self._blocks = _neighbors(reader.blocks)
        self._all_blocks = reader.blocks.names
        self.roles = self._roles.names
        self.blocks = self._blocks.names
        self.last_id = ""
        widths = [
            *((name, 1) for name in SCALARS[1:]),
            *((name, len(self.roles)) for name in ROLE_COLUMNS),
            ("block_shares", len(self.blocks)),
        ]
        end = 0
        self._slices: dict[str, slice] = {}
        for name, width in widths:
            self._slices[name] = slice(end, end + width)
            end += width
        self._rows = np.empty((64, end), np.float32)
        self._steps = np.empty(64, np.int64)  # they need more digits than the others
        self._count = 0

    def __len__(self) -> int:
        """Return the number of measurements."""
        return self._count

    def append(self, point: Point) -> None:
        """Add a measurement that is later than those before."""
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
            self._steps = np.concatenate([self._steps, np.empty_like(self._steps)])
        self._fill(self._rows[self._count], point)
        self._steps[self._count] = point.step
        self._count += 1
        self.last_id = point.id

    def drop(self, count: int) -> None:
        """Remove the oldest measurements.

        Args:
            count: Their number, at most all of them.
        """
        kept = self._count - count
        self._rows[:kept] = self._rows[count : self._count].copy()
        self._steps[:kept] = self._steps[count : self._count].copy()
        self._count = kept

    def members_of_block(self, shown: str) -> frozenset[str]:
        """Return the blocks that a shown block stands for; empty: there is no such block."""
        if shown not in self.blocks:
            return frozenset()
        where = np.flatnonzero(self._blocks.targets == self.blocks.index(shown))
        return frozenset(self._all_blocks[i] for i in where)

    def row(self, index: int) -> dict[str, Floats]:
        """Return a measurement, by the name of the column.

        Args:
            index: Its position, from 0 for the oldest one.
        """
        row = self._rows[index].astype(np.float64)
        found = {name: row[where] for name, where in self._slices.items()}
        return {"step": self._steps[[index]].astype(np.float64), **found}

    def _fill(self, row: npt.NDArray[np.float32], point: Point) -> None:
        """Set a row to the numbers of a measurement."""
        row[:] = np.nan
        for name in SCALARS[1:]:
            value = getattr(point, name)
            if value is not None:
                with np.errstate(over="ignore"):  # the loss of a training that diverged
                    row[self._slices[name]] = value
        for name in ROLE_COLUMNS:
            values = getattr(point, name)
            if values is not None:
                merge = self._roles.geometric_means if name in _GEOMETRIC else self._roles.sums
                row[self._slices[name]] = merge(values)
        if point.block_shares is not None:
            row[self._slices["block_shares"]] = self._blocks.sums(point.block_shares)

    def column(self, name: str) -> Floats:
        """Return a column: shape [measurements] for scalars, else [measurements, parts].

        Args:
            name: One of :data:`SCALARS`, ``role_shares``, ``role_multipliers``,
                ``role_learning_rates`` or ``block_shares``.
        """
        if name == SCALARS[0]:
            return self._steps[: self._count].astype(np.float64)
        found = self._rows[: self._count, self._slices[name]].astype(np.float64)
        return found[:, 0] if name in SCALARS else found


def aligned_extremes(steps: Floats, values: Floats, buckets: int) -> tuple[Floats, Floats]:
    """Reduce series to two points per bucket: the smallest and the largest value of each series.

    The measurements are divided into consecutive buckets of equal size, such as the pixels of a
    chart. All series share the steps of the result, which are the first and the last one of each
    bucket; the two values are in the order in which they occur. So no peak is lost, and a value is
    off by less than a bucket.

    Args:
        steps: Step of each measurement, shape [measurements].
        values: The series, shape [measurements, series]; NaN: no value.
        buckets: Number of buckets, at least 1.

    Returns:
        Steps and values of at most ``2 * buckets`` points; unchanged if there are no more.
    """
    count = len(steps)
    if count <= 2 * buckets:
        return steps, values
    starts = np.linspace(0, count, buckets, endpoint=False).astype(np.intp)
    lasts = np.append(starts[1:], count) - 1
    known = ~np.isnan(values)
    low = np.minimum.reduceat(np.where(known, values, np.inf), starts)
    high = np.maximum.reduceat(np.where(known, values, -np.inf), starts)
    rises = _position(values, low, starts) <= _position(values, high, starts)
    empty = ~np.isfinite(low)
    first = np.where(empty, np.nan, np.where(rises, low, high))
    second = np.where(empty, np.nan, np.where(rises, high, low))
    found = np.stack([first, second], axis=1).reshape(2 * buckets, -1)
    return np.stack([steps[starts], steps[lasts]], axis=1).ravel(), found


def bucket_means(steps: Floats, values: Floats, buckets: int) -> tuple[Floats, Floats]:
    """Return the mean of each series in each bucket of consecutive measurements.

    For pictures whose parts add up, such as shares: the means still do.

    Args:
        steps: Step of each measurement, shape [measurements].
        values: The series, shape [measurements, series]; NaN: no value.
        buckets: Maximum number of buckets, at least 1.

    Returns:
        The first step of each bucket, and the means, shape [buckets, series].
    """
    count = len(steps)
    if count <= buckets:
        return steps, values
    starts = np.linspace(0, count, buckets, endpoint=False).astype(np.intp)
    known = ~np.isnan(values)
    totals = np.add.reduceat(np.where(known, values, 0.0), starts)
    counts = np.add.reduceat(known.astype(np.float64), starts)
    return steps[starts], np.where(counts > 0, totals, np.nan) / np.maximum(counts, 1)


def _position(values: Floats, wanted: Floats, starts: Indices) -> npt.NDArray[np.intp]:
    """Return where each series first has the wanted value of each bucket."""
    count = len(values)
    lengths = np.diff(starts, append=count)
    hits = values == np.repeat(wanted, lengths, axis=0)
    positions = np.where(hits, np.arange(count)[:, None], count)
    found: npt.NDArray[np.intp] = np.minimum.reduceat(positions, starts)
    return found


def _largest(parts: Parts, sizes: Floats) -> _Merged:
    """Keep the parts with the most parameters, and merge the rest into one at the end."""
    counts = np.array(parts.group_counts, np.float64)
    if len(parts.names) <= MAX_ROLES:
        return _Merged(parts.names, np.arange(len(parts.names)), counts)
    kept = np.sort(np.argsort(-sizes, kind="stable")[: MAX_ROLES - 1])
    targets = np.full(len(parts.names), len(kept), np.intp)
    targets[kept] = np.arange(len(kept))
    return _Merged((*(parts.names[i] for i in kept), ""), targets, counts)


def _neighbors(parts: Parts) -> _Merged:
    """Merge neighbors until there are few enough."""
    size = -(-len(parts.names) // MAX_BLOCKS)
    targets = np.arange(len(parts.names)) // size
    members: list[Sequence[str]] = [
        parts.names[i : i + size] for i in range(0, len(parts.names), size)
    ]
    return _Merged(
        tuple(map(_range_name, members)), targets, np.array(parts.group_counts, np.float64)
    )


def _range_name(names: Sequence[str]) -> str:
    """Return the name of neighbors: that of the first one, and what is different in the last."""
    first, last = names[0], names[-1]
    if len(names) == 1:
        return first
    stem, dot, end = last.rpartition(".")
    return f"{first} … {end if dot and first.startswith(stem + dot) else last}"

"""What a page shows of a run, in memory that does not grow with the run."""

from __future__ import annotations

import hashlib
from bisect import bisect_right

from advisor.policy.arrays import Floats
from advisor.report.points import PointReader
from advisor.report.run_columns import RunColumns
from advisor.report.run_figures import RunFigures
from advisor.web.event_ids import is_after, order_of
from fslr.advisor.v1 import run_service_pb2

MAX_MEASUREMENTS = 10_000
"""Maximum number of measurements with curves: as many as Redis keeps of a run."""
_SURPLUS = 1_000  # the oldest ones are dropped together
_MAX_POINTS = 64
_MAX_CHANGES = 500

Row = tuple[str, dict[str, Floats]]
"""The id of a measurement, and what the columns hold of it."""


class History:
    """What was read of a run.

    The newest measurements are in columns, by role and by block, and the newest event is kept
    whole, for the tables of groups.

    Args:
        run: The run.
        reader: Reduces its events to points.

    Attributes:
        figures: The figures of the run.
        columns: Its measurements in columns.
        shape: Identifies the roles and blocks of the columns.
    """

    def __init__(self, run: run_service_pb2.Run, reader: PointReader) -> None:
        self.figures = RunFigures(run, reader, max_points=_MAX_POINTS)
        self.columns = RunColumns(reader)
        names = "\n".join((*self.columns.roles, "", *self.columns.blocks))
        self.shape = hashlib.sha256(names.encode()).hexdigest()[:16]
        self._ids: list[str] = []  # of the measurements in the columns
        self._dropped = ""  # the newest measurement that is no longer there

    def add(self, event: run_service_pb2.RunEvent) -> bool:
        """Add an event that is later than those before.

        Returns:
            Whether it fits the layout; else it was only counted.
        """
        point = self.figures.add(event)
        if point is None:
            return False
        self.columns.append(point)
        self._ids.append(point.id)
        surplus = len(self._ids) - MAX_MEASUREMENTS
        if surplus >= _SURPLUS:
            self._dropped = self._ids[surplus - 1]
            del self._ids[:surplus]
            self.columns.drop(surplus)
        changes = self.figures.changes
        if len(changes) >= 2 * _MAX_CHANGES:
            del changes[:-_MAX_CHANGES]
        return True

    def rows_after(self, event_id: str, most: int) -> list[Row] | None:
        """Return the measurements after an event.

        Args:
            event_id: The event's id; empty: before all.
            most: Maximum number of measurements.

        Returns:
            The measurements, oldest first; None: there are more, or the oldest ones are gone.
        """
        start = bisect_right(self._ids, order_of(event_id), key=order_of)
        if len(self._ids) - start > most or is_after(self._dropped, event_id):
            return None
        return [(self._ids[i], self.columns.row(i)) for i in range(start, len(self._ids))]

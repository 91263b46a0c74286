"""The figures of a run: total output change, contributions, recommended learning rates."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median

from advisor.report.contributions import (
    ContributionRow,
    block_contributions,
    contributions,
    role_contributions,
)
from advisor.report.followed_recipe import FollowedRecipe, followed_recipe
from advisor.report.points import Point, PointReader
from advisor.report.recommendations import (
    RecommendedGroupRow,
    RecommendedRoleRow,
    recommended_groups,
    recommended_roles,
)
from advisor.report.run_changes import Change, ChangeReader
from advisor.report.runs import RunRow
from fslr.advisor.v1 import profile_pb2, run_service_pb2

_MIN_PARTS = 2  # of contributions


@dataclass(frozen=True, slots=True)
class MeasuringCost:
    """What measuring cost a run.

    Attributes:
        measurements: Number of measurements.
        median_seconds: Median time of a measurement, in seconds; None: not reported.
        overhead: Time of all measurements per time of training, a ratio; None: not reported.
        examples: Median number of examples of a measurement; 0: not reported.
    """

    measurements: int
    median_seconds: float | None
    overhead: float | None
    examples: int


@dataclass(slots=True)
class RunFigures:
    """The figures of a run, from its stored history.

    Add the events one at a time, oldest first: each is reduced to a :class:`.Point`, and only the
    newest one is kept whole. A page adds further events as they arrive, and keeps the last points.

    Attributes:
        run: The run's summary, with its layout.
        reader: Reduces events to points.
        points: The points so far, oldest first; the last ones if ``max_points`` is given.
        max_points: Number of points to keep; they are dropped once there are twice as many. None:
            all.
        measurements: Number of events that became a point.
        left_out: Number of events of an earlier layout with a different number of groups.
        newest: The newest event that became a point; None: there is none yet.
    """

    run: run_service_pb2.Run
    reader: PointReader
    points: list[Point] = field(default_factory=list)
    max_points: int | None = None
    measurements: int = 0
    left_out: int = 0
    newest: run_service_pb2.RunEvent | None = None
    _changes: ChangeReader = field(default_factory=ChangeReader)
    _seconds: array[float] = field(default_factory=lambda: array("d"))
    _examples: array[int] = field(default_factory=lambda: array("q"))
    _overhead: float | None = None

    @classmethod
    def of(
        cls,
        run: run_service_pb2.Run,
        events: Iterable[run_service_pb2.RunEvent] = (),
        profile: profile_pb2.ProfileContent | None = None,
    ) -> RunFigures:
        """Return the figures of a run.

        Args:
            run: The run's summary, with its layout.
            events: Its history, oldest first.
            profile: The content of the profile that it follows; None: not known.

        Raises:
            InvalidValueError: The run's layout is not valid.
        """
        figures = cls(run, PointReader(run.opening.layout, profile))
        for event in events:
            figures.add(event)
        return figures

    def add(self, event: run_service_pb2.RunEvent) -> Point | None:
        """Add an event, and return its point; None if it belongs to an earlier layout."""
        if not self.reader.fits(event):
            self.left_out += 1
            return None
        point = self.reader.read(event)
        self.points.append(point)
        self.measurements += 1
        if self.max_points is not None and len(self.points) >= 2 * self.max_points:
            del self.points[: -self.max_points]
        self._add_cost(point)
        self._changes.read(self.reader, event, point, observes_only=self.observes_only)
        self.newest = event
        return point

    @property
    def observes_only(self) -> bool:
        """Whether the run applies no multipliers: they are what would have been recommended."""
        return self.run.opening.observe_only

    @property
    def changes(self) -> list[Change]:
        """What changed and when, oldest first."""
        return self._changes.changes

    def row(self, now: datetime) -> RunRow:
        """Return the run as in a list.

        Args:
            now: The time, UTC.
        """
        return RunRow.of(self.run, now)

    def role_contributions(self) -> list[ContributionRow]:
        """Return what each role contributed over the last measurements; empty: not reported."""
        return role_contributions(self.reader.roles, self.points)

    def role_shares(self) -> dict[str, float]:
        """Return the mean share of every role over the last measurements; empty: not reported."""
        roles = self.reader.roles
        shares = [point.role_shares for point in self.points]
        rows = contributions(roles, shares, most=max(len(roles.names), _MIN_PARTS))
        return {row.part: row.share for row in rows}

    def block_contributions(self) -> list[ContributionRow]:
        """Return what each block contributed over the last measurements; empty: not reported."""
        return block_contributions(self.reader.blocks, self.points)

    def recommended_roles(self) -> list[RecommendedRoleRow]:
        """Return the newest recommendation for each role; empty before the first one."""
        return [] if self.newest is None else recommended_roles(self.reader, self.newest)

    def recommended_groups(
        self, role: str = "", blocks: Collection[str] = ()
    ) -> list[RecommendedGroupRow]:
        """Return the newest recommendation for each group.

        Args:
            role: Only the groups of this role; empty: all.
            blocks: Only the groups of these blocks; empty: all.
        """
        if self.newest is None:
            return []
        return recommended_groups(self.reader, self.newest, role, blocks)

    def recipe(self) -> FollowedRecipe | None:
        """Return the recipe that the newest answer follows; None: there is none."""
        if self.newest is None:
            return None
        return followed_recipe(self.run, self.reader, self.newest)

    def cost(self) -> MeasuringCost:
        """Return what measuring cost."""
        return MeasuringCost(
            self.measurements,
            median(self._seconds) if self._seconds else None,
            self._overhead,
            int(median(self._examples)) if self._examples else 0,
        )

    def _add_cost(self, point: Point) -> None:
        if point.measuring_seconds is not None:
            self._seconds.append(point.measuring_seconds)
        if point.measuring_overhead is not None:
            self._overhead = point.measuring_overhead
        if point.examples:
            self._examples.append(point.examples)

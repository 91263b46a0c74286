"""What changed during a run, and when: profile, policy, recipe, multipliers, warnings."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from advisor.policy.arrays import Floats
from advisor.report.points import Point, PointReader
from advisor.report.words import short_name
from fslr.advisor.v1 import run_service_pb2

_LARGE_CHANGE = 2.0  # factor on the multipliers of a role since the last change that was listed


class ChangeKind(enum.Enum):
    """What changed."""

    STARTED = "started"
    RESTARTED = "restarted"
    PROFILE = "profile"
    POLICY = "policy"
    RECIPE = "recipe"
    MULTIPLIERS = "multipliers"
    WOULD_HAVE_BEEN = "would_have_been"
    """As MULTIPLIERS, in a run that applies none."""
    STALE = "stale"
    FRESH = "fresh"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes:
        time: When the service answered, UTC.
        step: The measured step.
        kind: What changed.
        subject: What it is about: a profile's version, a policy, a recipe, a role, or the message
            of a warning.
        before: What it was before: a name, or a multiplier; None: nothing.
        after: What it is now.
        warning: The ``WarningKind`` of a warning; 0: unspecified, or no warning.
    """

    time: datetime
    step: int
    kind: ChangeKind
    subject: str = ""
    before: str | float | None = None
    after: str | float | None = None
    warning: int = 0


@dataclass(slots=True)
class ChangeReader:
    """Finds the changes in the events of a run, which are given one at a time, oldest first.

    Attributes:
        changes: The changes so far, oldest first.
    """

    changes: list[Change] = field(default_factory=list)
    _last: run_service_pb2.RunEvent | None = None
    _listed: Floats | None = None
    _warned: set[str] = field(default_factory=set)

    def read(
        self,
        reader: PointReader,
        event: run_service_pb2.RunEvent,
        point: Point,
        *,
        observes_only: bool,
    ) -> None:
        """Add what changed from the previous event to this one.

        Args:
            reader: The reader of the run's points.
            event: The event; it fits the reader's layout.
            point: Its point.
            observes_only: Whether the run applies no multipliers.
        """
        answer, step = event.recommendation, event.measurement.step
        last, self._last = self._last, event
        if last is None:
            self._add(event, ChangeKind.STARTED, answer.profile, after=short_name(answer.profile))
        else:
            earlier = last.recommendation
            is_first = not event.measurement.interval_steps and last.measurement.interval_steps
            if is_first or step <= last.measurement.step:
                self._add(event, ChangeKind.RESTARTED, before=float(last.measurement.step))
            for kind, old, new in (
                (ChangeKind.PROFILE, earlier.profile, answer.profile),
                (ChangeKind.POLICY, earlier.policy, answer.policy),
                (ChangeKind.RECIPE, earlier.recipe, answer.recipe),
            ):
                if old != new:
                    self._add(event, kind, new, before=short_name(old), after=short_name(new))
            if answer.stale != earlier.stale:
                self._add(event, ChangeKind.STALE if answer.stale else ChangeKind.FRESH)
        kind = ChangeKind.WOULD_HAVE_BEEN if observes_only else ChangeKind.MULTIPLIERS
        self._read_multipliers(reader, event, point.role_multipliers, kind)
        for warning in answer.warnings:
            if warning.message not in self._warned:
                self._warned.add(warning.message)
                self._add(event, ChangeKind.WARNING, warning.message, warning=warning.kind)

    def _read_multipliers(
        self,
        reader: PointReader,
        event: run_service_pb2.RunEvent,
        found: Floats,
        kind: ChangeKind,
    ) -> None:
        """Add the role whose multipliers changed most, if that is much."""
        if self._listed is None:
            self._listed = found
            return
        changes = np.abs(np.log(found / self._listed))
        role = int(np.argmax(changes))
        if changes[role] <= np.log(_LARGE_CHANGE):
            return
        self._add(
            event,
            kind,
            reader.roles.names[role],
            before=float(self._listed[role]),
            after=float(found[role]),
        )
        self._listed = found

    def _add(
        self,
        event: run_service_pb2.RunEvent,
        kind: ChangeKind,
        subject: str = "",
        *,
        before: str | float | None = None,
        after: str | float | None = None,
        warning: int = 0,
    ) -> None:
        time, step = event.time.ToDatetime(UTC), event.measurement.step
        self.changes.append(Change(time, step, kind, subject, before, after, warning))

"""Reads the history of a run from the service, in pages of bounded size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from advisor.report.points import PointReader
from advisor.web.backend import Backend, Viewer
from advisor.web.event_ids import order_of, places_over
from advisor.web.history import History
from advisor.web.shared_groups import SharedGroups
from fslr.advisor.v1 import profile_pb2, run_service_pb2
from fslr.errors import NotFoundError, PermissionDeniedError

_PAGE_BYTES = 4 * 2**20  # of one answer with events
_GROUP_BYTES = 48  # of one group in an event, about
_MAX_PAGE_EVENTS = 250
_TURN_S = 5e-3  # of reading, between two chances of other requests
_OUTLINE_S = 0.05  # to spend on an outline
_MIN_OUTLINE, _MAX_OUTLINE = 8, 32  # events of an outline, evenly over the time of the run
_EVENT_S, _GROUP_S = 1e-3, 5e-7  # about how long an event takes to read, and each of its groups
_PROFILE_GROUP_S = 5e-5  # and the profile, for each group of the run


class HistoryReader:
    """Reads one run as one viewer may see it.

    Args:
        backend: The service.
        groups: Derives the groups of the run's layout.
        viewer: The viewer.
        project: The run's project.
        run: The run's id.

    Raises:
        ServiceError: From every method, if the run cannot be read.
    """

    def __init__(
        self, backend: Backend, groups: SharedGroups, viewer: Viewer, project: str, run: str
    ) -> None:
        self._backend = backend
        self._groups = groups
        self._of = (viewer, project, run)

    async def summary(self) -> run_service_pb2.Run:
        """Return the run."""
        return await self._backend.run(*self._of)

    async def new_history(self, run: run_service_pb2.Run) -> History:
        """Read the profile of a run, and return an empty history.

        Args:
            run: The run.
        """
        groups, profile = await asyncio.gather(
            self._groups.get(run.opening.layout), self._profile(run.opening.profile)
        )
        return History(run, PointReader(groups, profile))

    async def _profile(self, name: str) -> profile_pb2.ProfileContent | None:
        viewer, project, _ = self._of
        try:
            answer = await self._backend.profile(viewer, project, name)
        except (NotFoundError, PermissionDeniedError):
            return None
        return answer.profile.content

    def seconds_of(self, run: run_service_pb2.Run) -> float:
        """Return about how long it takes to read a run's profile and all events, in seconds."""
        groups = len(run.opening.layout.groups)
        return _PROFILE_GROUP_S * groups + run.measurements * _event_s(groups)

    async def outline(self, run: run_service_pb2.Run) -> History:
        """Read single events, evenly over the time of a run, and not its profile.

        Args:
            run: The run.
        """
        groups, events = await asyncio.gather(
            self._groups.get(run.opening.layout), self._single_events(run)
        )
        history = History(run, PointReader(groups))
        turns = Turns()
        for event in events:
            history.add(event)
            await turns.next()
        return history

    async def _single_events(self, run: run_service_pb2.Run) -> list[run_service_pb2.RunEvent]:
        """Return the events of an outline, oldest first."""
        event_s = _event_s(len(run.opening.layout.groups))
        count = min(max(int(_OUTLINE_S / event_s), _MIN_OUTLINE), _MAX_OUTLINE)
        answers = await asyncio.gather(
            *(
                self._backend.history(*self._of, after_id=place, size=1)
                for place in places_over(run, count)
            )
        )
        found = {event.id: event for answer in answers for event in answer.events}
        return [found[event_id] for event_id in sorted(found, key=order_of)]

    async def page(
        self, history: History, after_id: str
    ) -> tuple[list[run_service_pb2.RunEvent], bool]:
        """Return the next events of a run, and whether more follow.

        Args:
            history: A history of the run: the more groups it has, the fewer events are a page.
            after_id: The id after which to read; empty: from the oldest event.
        """
        groups = len(history.figures.reader.groups)
        size = max(1, min(_MAX_PAGE_EVENTS, _PAGE_BYTES // (groups * _GROUP_BYTES)))
        answer = await self._backend.history(*self._of, after_id=after_id, size=size)
        return list(answer.events), answer.more

    def watch(self, after_id: str) -> AsyncGenerator[run_service_pb2.RunEvent, None]:
        """Yield the events after an id as they arrive."""
        return self._backend.watch(*self._of, after_id=after_id)


class Turns:
    """Lets other requests be answered during a long computation."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def next(self) -> None:
        """Wait for the others if the last chance was long ago."""
        if time.monotonic() - self._since > _TURN_S:
            await asyncio.sleep(0)
            self._since = time.monotonic()


def _event_s(groups: int) -> float:
    """Return about how long it takes to read an event of so many groups, in seconds."""
    return _EVENT_S + _GROUP_S * groups

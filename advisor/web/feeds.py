"""Runs that pages look at, each once for all its pages.

A feed belongs to one run and one viewer, so it shows only what that viewer may read.
"""

from __future__ import annotations

import asyncio

from advisor.web.backend import Backend, Viewer
from advisor.web.history_reading import HistoryReader
from advisor.web.run_feed import RunFeed
from advisor.web.shared_groups import SharedGroups

_MAX_FEEDS = 64
_IDLE_S = 60.0
_JANITOR_PERIOD_S = 5.0


class RunFeeds:
    """The feeds of a process; idle ones are closed.

    Args:
        backend: The service.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._groups = SharedGroups()
        self._feeds: dict[tuple[str, str, str], RunFeed] = {}
        self._opening: dict[tuple[str, str, str], asyncio.Task[RunFeed]] = {}
        self._janitor: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return the number of open feeds."""
        return len(self._feeds)

    def start(self) -> None:
        """Start to close idle feeds."""
        self._janitor = asyncio.create_task(self._run(), name="idle feeds")

    async def stop(self) -> None:
        """Close all feeds, which ends their live pages."""
        if self._janitor is not None:
            self._janitor.cancel()
        opening = [*self._opening.values()]
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        feeds, self._feeds = [*self._feeds.values()], {}
        await asyncio.gather(*(feed.close() for feed in feeds))

    async def get(self, viewer: Viewer, project: str, run: str) -> RunFeed:
        """Return the feed of a run for a viewer, with as much of its history as takes a moment.

        Raises:
            ServiceError: The run cannot be read.
        """
        feed = await self.begin(viewer, project, run)
        await feed.opened()
        return feed

    async def begin(self, viewer: Viewer, project: str, run: str) -> RunFeed:
        """Return the feed of a run for a viewer, whose history is perhaps still being read.

        Requests for the same one open it once.

        Raises:
            ServiceError: The run cannot be read.
        """
        key = (viewer.key, project, run)
        feed = self._feeds.get(key)
        if feed is None or feed.closed:
            task = self._opening.get(key)
            if task is None:
                task = asyncio.create_task(self._begin(viewer, project, run))
                self._opening[key] = task
                task.add_done_callback(lambda _: self._opening.pop(key, None))
            feed = await asyncio.shield(task)
        feed.touch()
        return feed

    async def _begin(self, viewer: Viewer, project: str, run: str) -> RunFeed:
        feed = RunFeed(HistoryReader(self._backend, self._groups, viewer, project, run))
        await feed.begin()
        self._feeds[viewer.key, project, run] = feed
        return feed

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_JANITOR_PERIOD_S)
            by_age = sorted(self._feeds, key=lambda key: -self._feeds[key].idle_s)
            surplus = len(by_age) - _MAX_FEEDS
            for i, key in enumerate(by_age):
                idle_s = self._feeds[key].idle_s
                if idle_s > _IDLE_S or (i < surplus and idle_s > 0):
                    await self._feeds.pop(key).close()

"""Groups of runs by role and block, each derived once for all runs of a model."""

from __future__ import annotations

import asyncio
from hashlib import blake2b

from cachetools import LRUCache

from advisor.report.run_groups import RunGroups
from fslr.advisor.v1 import layout_pb2

_MAX_GROUPS = 500_000  # a group takes about 200 bytes
_MIN_THREAD_GROUPS = 500  # fewer take less time than starting a thread


class SharedGroups:
    """Derives the groups of layouts, and caches them by a digest of their messages.

    Several pages open the runs of one model, and deriving the roles of 10,000 groups takes about 70
    milliseconds of CPU time.

    Args:
        max_groups: Maximum number of groups in all cached layouts. A larger layout is not cached.
    """

    def __init__(self, max_groups: int = _MAX_GROUPS) -> None:
        self._cached: LRUCache[bytes, RunGroups] = LRUCache(max_groups, getsizeof=len)
        self._deriving: dict[bytes, asyncio.Task[RunGroups]] = {}

    async def get(self, message: layout_pb2.Layout) -> RunGroups:
        """Return the groups of a layout; one that is being derived is awaited.

        Raises:
            InvalidValueError: The layout is not valid.
        """
        digest = blake2b(message.SerializeToString(), digest_size=32).digest()
        cached = self._cached.get(digest)
        if cached is not None:
            return cached
        task = self._deriving.get(digest)
        if task is None:
            task = asyncio.create_task(self._derive(digest, message), name="groups of a run")
            self._deriving[digest] = task
            task.add_done_callback(lambda _: self._deriving.pop(digest, None))
        return await asyncio.shield(task)

    async def _derive(self, digest: bytes, message: layout_pb2.Layout) -> RunGroups:
        if len(message.groups) < _MIN_THREAD_GROUPS:
            groups = RunGroups.of(message)
        else:  # other requests are answered meanwhile
            groups = await asyncio.to_thread(RunGroups.of, message)
        if len(groups) <= self._cached.maxsize:
            self._cached[digest] = groups
        return groups

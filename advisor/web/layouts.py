"""Layouts of runs, each derived once for all runs of a model."""

from __future__ import annotations

import asyncio
from hashlib import blake2b

from cachetools import LRUCache

from advisor.policy import Layout
from advisor.wire.layouts import layout_from_proto
from fslr.advisor.v1 import layout_pb2

_MAX_NAMES = 200_000  # a name takes about 2 KiB
_MIN_THREAD_GROUPS = 500  # a smaller layout takes less time than starting a thread


class SharedLayouts:
    """Derives layouts, and caches them by a digest of their messages.

    Deriving the roles of 10,000 groups takes about half a second of CPU time, and several pages
    open the runs of one model.

    Args:
        max_names: Maximum number of names in all cached layouts. A larger layout is not cached.
    """

    def __init__(self, max_names: int = _MAX_NAMES) -> None:
        self._layouts: LRUCache[bytes, Layout] = LRUCache(max_names, getsizeof=_count_names)
        self._deriving: dict[bytes, asyncio.Task[Layout]] = {}

    async def get(self, message: layout_pb2.Layout) -> Layout:
        """Return the layout of a message; one that is being derived is awaited.

        Raises:
            InvalidValueError: The layout is not valid.
        """
        digest = blake2b(message.SerializeToString(), digest_size=32).digest()
        cached = self._layouts.get(digest)
        if cached is not None:
            return cached
        task = self._deriving.get(digest)
        if task is None:
            task = asyncio.create_task(self._derive(digest, message), name="layout of a run")
            self._deriving[digest] = task
            task.add_done_callback(lambda _: self._deriving.pop(digest, None))
        return await asyncio.shield(task)

    async def _derive(self, digest: bytes, message: layout_pb2.Layout) -> Layout:
        if len(message.groups) < _MIN_THREAD_GROUPS:
            layout = layout_from_proto(message)
        else:  # other requests are answered meanwhile
            layout = await asyncio.to_thread(layout_from_proto, message)
        if _count_names(layout) <= self._layouts.maxsize:
            self._layouts[digest] = layout
        return layout


def _count_names(layout: Layout) -> int:
    return len(layout) + len(layout.frozen_names)

"""Tasks of the event loop whose callers may leave."""

from __future__ import annotations

import asyncio
from typing import Any


def forget(task: asyncio.Task[Any]) -> None:
    """Take note of how a task ended, which whoever began it may not wait for any more.

    Else asyncio writes into the log that nobody did.
    """
    if not task.cancelled():
        task.exception()

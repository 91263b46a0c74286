"""Runs and stops the event loop, and keeps background tasks."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine until it ends, on uvloop if that is installed."""
    try:
        import uvloop  # noqa: PLC0415 - optional, and faster
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def stop_at_eof(stop: asyncio.Event) -> None:
    """Set an event once standard input has ended, which happens when the parent process dies.

    Register it as the running loop's reader of standard input; it removes itself.
    """
    descriptor = sys.stdin.fileno()
    if not os.read(descriptor, 4096):
        stop.set()
        asyncio.get_running_loop().remove_reader(descriptor)  # it would stay readable for ever


def retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Mark a finished task's exception as retrieved.

    Otherwise asyncio logs an error when a task fails after its callers have stopped waiting for it.
    """
    if not task.cancelled():
        task.exception()

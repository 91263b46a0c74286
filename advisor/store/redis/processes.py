"""Processes: their event loop, how they end, how they are ended."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any


def end(process: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """Ask a process to end, and kill it if it does not within ``grace_s`` seconds."""
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, on the fastest event loop that is there."""
    try:
        import uvloop  # noqa: PLC0415 - faster where it is available
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def stop_at_eof(stop: asyncio.Event) -> None:
    """Set an event if standard input ended, as it does when the parent process dies."""
    descriptor = sys.stdin.fileno()
    if not os.read(descriptor, 4096):
        stop.set()
        asyncio.get_running_loop().remove_reader(descriptor)  # it stays readable, for ever

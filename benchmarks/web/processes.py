"""Finds the process of the page beside its service, and says when it is idle."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

_MODULE = b"advisor.server.web_worker"
_CHECK_S = 1.0
_MAX_CHECKS = 10
_IDLE_CORES = 0.1  # with open pages of runs that report nothing


def web_process(service: int) -> int:
    """Return the id of the process of the page.

    Args:
        service: Id of the service's process.

    Raises:
        LookupError: The service has no page.
    """
    children = Path(f"/proc/{service}/task/{service}/children").read_text("utf-8").split()
    for child in children:
        if _MODULE in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise LookupError(f"process {service} serves no page; start the service with --http")


async def wait_until_idle(process: int) -> None:
    """Wait until a process uses little CPU time, but not for ever.

    Args:
        process: Its id.
    """
    used = _cpu_seconds(process)
    for _ in range(_MAX_CHECKS):
        await asyncio.sleep(_CHECK_S)
        before, used = used, _cpu_seconds(process)
        if used - before < _IDLE_CORES * _CHECK_S:
            return


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""The process of the web page: ``python -m advisor.server.web_worker``.

:mod:`advisor.server.web` starts it, with its task in the environment. It runs a replica of the
service that only the page can reach, so looking at pages neither slows advice down nor gets around
the rules of the RPCs. Where the cores are busy, it has a lower priority than the service. It
reports on standard output that it answers, or why it cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from advisor.errors import StoreUnavailableError
from advisor.observability.logs import configure_logging
from advisor.runtime.event_loop import run_loop, stop_at_eof
from advisor.server.bootstrap import running_service
from advisor.server.web import bound_listener, web_limits
from advisor.server.worker import READY, START_ERRORS, TASK_VARIABLE, WorkerTask, start_problem
from advisor.web.backend import Backend
from advisor.web.serving import serving

_NICENESS = 5  # a third of the CPU time of a process that competes with it


async def _work(task: WorkerTask) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop_at_eof, stop)
    settings = task.settings
    listener = bound_listener(settings)
    with tempfile.TemporaryDirectory(prefix="fslr-web-") as folder:  # for this user only
        async with (
            running_service(
                settings, task.redis_url, private_socket=Path(folder) / "service"
            ) as service,
            serving(
                Backend(service.address),
                web_limits(settings),
                listener=listener,
                tls=settings.tls,
                grace_s=settings.grace_s,
            ) as address,
        ):
            _report(f"{READY} {address.port}")
            await stop.wait()


def _report(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


def main() -> None:
    """Run the page until it is stopped."""
    task = WorkerTask.model_validate_json(os.environ.pop(TASK_VARIABLE))
    configure_logging(as_json=task.log_json)
    with contextlib.suppress(OSError):  # not allowed here
        os.nice(_NICENESS)
    try:
        run_loop(_work(task))
    except (*START_ERRORS, StoreUnavailableError) as error:
        _report(" ".join(start_problem(error, task.settings).split()))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

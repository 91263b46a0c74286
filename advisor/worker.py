"""One of several processes that answer on the same port: ``python -m advisor.worker``.

It is started by :mod:`advisor.workers`, takes its task from the environment, says over standard
output that it answers, or why it cannot, and ends when it is told to or standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from pydantic import BaseModel

from advisor.bootstrap import ListenError, running_service
from advisor.certificate_roles import CertificateRolesError
from advisor.errors import StoreUnavailableError
from advisor.logs import configure_logging
from advisor.processes import run_loop, stop_at_eof
from advisor.settings import Settings
from advisor.tracing import TracingError
from fslr import CertificateError

TASK_VARIABLE = "ADVISOR_WORKER_TASK"
READY = "ready"

START_ERRORS = (ListenError, CertificateError, CertificateRolesError, TracingError)
"""What keeps a service from starting, told to the operator as it is."""


class WorkerTask(BaseModel):
    """What a worker has to do.

    Attributes:
        settings: The service's settings; ``port`` is the one to share.
        redis_url: The Redis to use.
        log_json: Whether to log JSON lines.
    """

    settings: Settings
    redis_url: str
    log_json: bool


async def _work(task: WorkerTask) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(wanted, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop_at_eof, stop)
    async with running_service(task.settings, task.redis_url, shares_port=True):
        _say(READY)
        await stop.wait()


def _say(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


def main() -> None:
    """Work until told to stop."""
    task = WorkerTask.model_validate_json(os.environ.pop(TASK_VARIABLE))
    configure_logging(as_json=task.log_json)
    try:
        run_loop(_work(task))
    except (*START_ERRORS, StoreUnavailableError) as error:
        _say(" ".join(str(error).split()))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

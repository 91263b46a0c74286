"""One of several processes that answer on the same port: ``python -m advisor.server.worker``.

:mod:`advisor.server.workers` starts it, with its task in the environment. It reports on standard
output that it answers, or why it cannot, and stops on a signal or when standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from pydantic import BaseModel

from advisor.auth.certificate_roles import CertificateRolesError
from advisor.errors import StoreUnavailableError
from advisor.observability.logs import configure_logging
from advisor.observability.tracing import TracingError
from advisor.runtime.event_loop import run_loop, stop_at_eof
from advisor.server.bootstrap import running_service
from advisor.server.listening import ListenError
from advisor.server.settings import Settings
from advisor.store.redis.addresses import redacted
from advisor.store.redis.embedded import LOG_FILE
from advisor.store.redis.tls_mismatch import tls_mismatch
from fslr import CertificateError

TASK_VARIABLE = "ADVISOR_WORKER_TASK"
READY = "ready"

START_ERRORS = (ListenError, CertificateError, CertificateRolesError, TracingError)
"""Exceptions that keep a service from starting; their messages are meant for the operator."""


def start_problem(error: Exception, settings: Settings) -> str:
    """Return the message for the operator about a start that failed.

    Args:
        error: One of :data:`START_ERRORS`, or a ``StoreUnavailableError``.
        settings: The service's settings.
    """
    if not isinstance(error, StoreUnavailableError):
        return str(error)
    if settings.redis_url is None:
        log = settings.data_dir / LOG_FILE
        return f"the embedded Redis cannot be used: {error.explanation}; see its log {log}"
    problem = f"the Redis at {redacted(settings.redis_url)} cannot be used: {error.explanation}"
    if error.remedy:
        return problem
    remedy = tls_mismatch(settings.redis_url) or (
        "check --redis-url and that the server runs, or omit --redis-url to use an embedded one"
    )
    return f"{problem}; {remedy}"


class WorkerTask(BaseModel):
    """The task of a worker.

    Attributes:
        settings: The service's settings; ``port`` is the shared port.
        redis_url: The Redis to use.
        log_json: Whether to log JSON lines.
    """

    settings: Settings
    redis_url: str
    log_json: bool


async def _work(task: WorkerTask) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop_at_eof, stop)
    async with running_service(task.settings, task.redis_url, shares_port=True):
        _report(READY)
        await stop.wait()


def _report(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


def main() -> None:
    """Run the worker until it is stopped."""
    task = WorkerTask.model_validate_json(os.environ.pop(TASK_VARIABLE))
    configure_logging(as_json=task.log_json)
    try:
        run_loop(_work(task))
    except (*START_ERRORS, StoreUnavailableError) as error:
        _report(" ".join(start_problem(error, task.settings).split()))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

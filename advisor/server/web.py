"""The web page beside a service, in a process of its own that is restarted when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import structlog

from advisor.server.listening import ListenError, address_of
from advisor.server.settings import Settings
from advisor.server.worker import WorkerTask
from advisor.server.workers import STOP_MARGIN_S, Worker
from fslr.optional_dependencies import install_command

if TYPE_CHECKING:
    from advisor.web.app import WebLimits

_MODULE = "advisor.server.web_worker"
_PACKAGES = ("starlette", "uvicorn", "jinja2")
_UNUSED = {"metrics_port": None, "tracing": False, "workers": 1}

_log = structlog.get_logger()


@contextlib.asynccontextmanager
async def running_web(
    settings: Settings, redis_url: str, *, log_json: bool
) -> AsyncIterator[str | None]:
    """Serve the web page while the context lasts, if the settings name a port.

    Args:
        settings: The service's settings.
        redis_url: The Redis to use: the embedded one's or the settings'.
        log_json: Whether to log JSON lines.

    Yields:
        The page's address for a browser; None if it is not served.

    Raises:
        ListenError: The port is taken, or the packages of the page are not installed.
    """
    if settings.http is None:
        yield None
        return
    check_packages()
    worker = Worker(
        _MODULE,
        WorkerTask(
            settings=settings.model_copy(update=_UNUSED), redis_url=redis_url, log_json=log_json
        ),
    )
    await worker.start()
    # A process that replaces this one listens on the same port.
    port = int(worker.details)
    worker.task = worker.task.model_copy(
        update={"settings": worker.task.settings.model_copy(update={"http": port})}
    )
    supervisor = asyncio.create_task(worker.supervise())
    try:
        yield url_of(settings, port)
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
        await worker.stop(settings.max_stop_s + STOP_MARGIN_S)


def check_packages() -> None:
    """Check that the packages of the page are installed.

    Raises:
        ListenError: One is missing.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ListenError(f"the web page needs {', '.join(missing)}; {install_command('web')}")


def bound_listener(settings: Settings) -> socket.socket:
    """Return a socket bound to the port of the page.

    Raises:
        ListenError: The port is taken, or the address is not one of this machine.
    """
    port = settings.http or 0
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, port))
    except OSError as error:
        listener.close()
        raise ListenError(
            f"cannot serve the web page on {address_of(settings.host, port)}: {error.strerror}; "
            "choose a different --http (0 takes a free port)"
        ) from error
    return listener


def web_limits(settings: Settings) -> WebLimits:
    """Return the limits of the page from the settings."""
    from advisor.web.app import WebLimits  # noqa: PLC0415 - an extra

    return WebLimits(
        max_requests_per_s=settings.http_max_requests_per_s,
        max_live_pages=settings.http_max_live_pages,
    )


def url_of(settings: Settings, port: int) -> str:
    """Return the address of the page for a browser."""
    scheme = "http" if settings.tls is None else "https"
    return f"{scheme}://{address_of(settings.host, port)}/"

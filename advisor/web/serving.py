"""Serves the page over HTTP or HTTPS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import structlog
import uvicorn

from advisor.web.app import WebLimits, create_app
from advisor.web.backend import Backend
from fslr.client.certificates import CertificateFiles
from fslr.errors import CertificateError

_REFRESH_S = 5.0
_KEEP_ALIVE_S = 30

_log = structlog.get_logger()


class _Server(uvicorn.Server):
    """A server that leaves signals to the process that it runs in.

    Args:
        config: Its settings.

    Attributes:
        is_listening: Set once it answers.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        self.is_listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


@dataclass(frozen=True, slots=True)
class WebAddress:
    """Where the page is served.

    Attributes:
        port: The TCP port.
        url: The address for a browser.
    """

    port: int
    url: str


@contextlib.asynccontextmanager
async def serving(
    backend: Backend,
    limits: WebLimits,
    *,
    listener: socket.socket,
    tls: CertificateFiles | None,
    grace_s: float,
) -> AsyncIterator[WebAddress]:
    """Serve the page while the context lasts.

    Args:
        backend: The service to read from.
        limits: The limits of the page.
        listener: The bound socket to listen on.
        tls: Certificate and key, which are read again when they change; with ``ca``, browsers must
            present a certificate that it issued. None: no TLS.
        grace_s: Maximum time for requests to end when it stops, in seconds.

    Yields:
        The address.

    Raises:
        CertificateError: The TLS files cannot be used.
    """
    context = None if tls is None else _context(tls)
    app = create_app(backend, limits)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(grace_s)),
        ssl_context_factory=None if context is None else lambda *_: context,
    )
    server = _Server(config)
    tasks = [asyncio.create_task(server.serve([listener]), name="web page")]
    if tls is not None and context is not None:
        tasks.append(asyncio.create_task(_refresh(tls, context), name="web certificate"))
    try:
        listening = asyncio.create_task(server.is_listening.wait())
        await asyncio.wait([tasks[0], listening], return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        yield WebAddress(port, f"{'http' if tls is None else 'https'}://{shown}:{port}/")
    finally:
        await app.state.context.feeds.stop()  # live pages would never end by themselves
        server.should_exit = True
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _context(files: CertificateFiles) -> ssl.SSLContext:
    """Return the TLS settings of a server."""
    files.read()  # raises an error that names the files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, files)
    if files.ca is not None:
        context.load_verify_locations(files.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load(context: ssl.SSLContext, files: CertificateFiles) -> None:
    assert files.cert is not None  # noqa: S101 - a server has a certificate
    context.load_cert_chain(files.cert, files.key)


async def _refresh(files: CertificateFiles, context: ssl.SSLContext) -> None:
    """Use a changed certificate for new connections; a wrong one is logged and left out."""
    watched = files.watch()
    while True:
        await asyncio.sleep(_REFRESH_S)
        try:
            if watched.refresh():
                _load(context, files)
                _log.info("the certificate of the web page was reloaded")
        except (CertificateError, ssl.SSLError, OSError) as error:
            _log.error("the last valid certificate of the web page stays in use", error=str(error))

"""The sockets of the service: addresses, the gRPC port, and metrics over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry

from advisor.observability.metrics import serve
from advisor.rpc.tls import server_credentials
from advisor.server.settings import Settings


class ListenError(Exception):
    """The service cannot listen on its address."""


def address_of(host: str, port: int) -> str:
    """Return ``host:port`` in gRPC's notation, with IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond loopback without encryption and authentication.

    Raises:
        ListenError: Other machines can reach the address, calls are not encrypted or callers not
            authenticated, and ``allow_insecure`` is not set.
    """
    is_secure = settings.tls is not None and settings.authenticates
    if settings.is_loopback or is_secure or settings.allow_insecure:
        return
    missing = "callers are not authenticated" if settings.tls else "calls are not encrypted"
    raise ListenError(
        f"{settings.host} can be reached from other machines, and {missing}; give --tls-cert "
        "and --tls-key and leave out --no-authenticate, listen on 127.0.0.1, or give "
        "--allow-insecure if the network itself is trusted"
    )


def listen(server: grpc.aio.Server, settings: Settings) -> int:
    """Add the settings' port to a server.

    Returns:
        The port.

    Raises:
        CertificateError: The TLS files cannot be used.
        ListenError: The port is taken, or the address is not one of this machine.
    """
    address = address_of(settings.host, settings.port)
    try:
        if settings.tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials(settings.tls))
    except RuntimeError:
        port = 0
    if port == 0:
        raise ListenError(
            f"cannot listen on {address}: the port is taken or the address is not this machine's; "
            "choose a different --port (0 takes a free one) or stop the program that holds it"
        )
    return port


def listen_privately(server: grpc.aio.Server, path: Path) -> str:
    """Add a Unix socket to a server, for other parts of the same process.

    Args:
        server: The server.
        path: Path of the socket, in a folder that only this user can access.

    Returns:
        The address in gRPC's notation.

    Raises:
        ListenError: The socket cannot be created.
    """
    address = f"unix:{path}"
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError(f"cannot create the socket {path}: {error}") from error
    return address


@contextlib.contextmanager
def metrics_served(registry: CollectorRegistry, settings: Settings) -> Iterator[int | None]:
    """Serve metrics while the context lasts, if the settings name a port.

    Args:
        registry: The metrics.
        settings: The settings.

    Yields:
        The port; None if metrics are not served.

    Raises:
        ListenError: The port is taken.
    """
    if settings.metrics_port is None:
        yield None
        return
    try:
        port, stop = serve(registry, settings.host, settings.metrics_port)
    except OSError as error:
        raise ListenError(
            f"cannot serve metrics on {address_of(settings.host, settings.metrics_port)}: "
            f"{error.strerror}; choose a different --metrics-port"
        ) from error
    try:
        yield port
    finally:
        stop()

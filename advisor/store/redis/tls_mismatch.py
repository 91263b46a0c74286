"""Finds out whether a Redis that does not answer and its URL disagree on TLS."""

from __future__ import annotations

import socket
import ssl

from advisor.store.redis.addresses import parse_address

_TIMEOUT_S = 1.0


def tls_mismatch(url: str) -> str:
    """Return what to change in a URL whose scheme disagrees with the server on TLS, or nothing.

    Asks the first server of the URL once each way, without a password.

    Args:
        url: The URL of a Redis that does not answer.
    """
    address = parse_address(url)
    if not address.hosts:
        return ""
    scheme = url.partition("://")[0]
    if address.tls is not None:
        if _answers_without_tls(address.hosts[0]):
            without = scheme.replace("rediss", "redis", 1)
            return (
                f"this port does not use TLS: start redis_url with {without}://, or use the port "
                "that `tls-port` sets"
            )
    elif _answers_tls(address.hosts[0]):
        return f"this port uses TLS: start redis_url with {scheme.replace('redis', 'rediss', 1)}://"
    return ""


def _answers_without_tls(place: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(place, _TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) in {b"+", b"-"}  # an answer or an error
    except OSError:
        return False


def _answers_tls(place: tuple[str, int]) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False  # only whether it uses TLS is asked, and nothing is sent
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(place, _TIMEOUT_S) as connection,
            context.wrap_socket(connection) as wrapped,
        ):
            return wrapped.version() is not None
    except OSError:
        return False

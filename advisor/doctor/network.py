"""Checks an address below gRPC: name resolution, TCP connection and TLS handshake."""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime

from advisor.doctor.rules import Handshake
from fslr import CertificateFiles
from fslr.client.http_proxies import HttpProxy, find_proxy
from fslr.client.loopback import is_socket, without_scheme

_MAX_PROXY_ANSWER_BYTES = 65_536
_DEFAULT_PORT = 443  # gRPC's default


class UnreachableError(Exception):
    """The address cannot be resolved or does not accept connections."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One IP address of a service.

    Attributes:
        host: The host name in the address, for which the certificate must be issued.
        family: Address family of ``ip``.
        ip: The IP address that the host name resolves to; the host name itself if a proxy
            resolves it.
        port: TCP port.
        proxy: The HTTP proxy that calls go through; None: they go directly.
    """

    host: str
    family: int
    ip: str
    port: int
    proxy: HttpProxy | None = None

    def __str__(self) -> str:
        """Return the endpoint for messages."""
        through = "" if self.proxy is None else f" through the proxy {self.proxy.place}"
        return f"{self.ip} port {self.port}{through}"


def endpoints(address: str) -> list[Endpoint]:
    """Resolve an address as gRPC would.

    Args:
        address: ``host:port``, ``dns:///host:port`` or ``ipv4:HOST:PORT,HOST:PORT``; a Unix
            socket (``unix:``, ``unix-abstract:``) has no endpoints.

    Raises:
        UnreachableError: The address cannot be resolved, or its port is not a number.
    """
    if is_socket(address):
        return []
    found: list[Endpoint] = []
    proxy = find_proxy(address)
    for target in without_scheme(address).split(","):
        host, port = _host_and_port(target)
        if proxy is not None:
            found.append(Endpoint(host, socket.AF_UNSPEC, host, port, proxy))
            continue
        try:
            resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnreachableError(f"{host} cannot be resolved ({reason})") from error
        for family, _, _, _, place in resolved:
            endpoint = Endpoint(host, family, str(place[0]), port)
            if endpoint not in found:
                found.append(endpoint)
    return found


def _host_and_port(target: str) -> tuple[str, int]:
    bare = target.count(":") != 1 and not target.startswith("[")  # an IPv6 address, or no port
    host, _, port = (target, "", "") if bare else target.rpartition(":")
    if not host or (port and not port.isdecimal()) or int(port or 0) > 65535:
        raise UnreachableError(f"{target!r} is not of the form host:port")
    return host.strip("[]"), int(port or _DEFAULT_PORT)


def connect(endpoint: Endpoint, timeout_s: float) -> None:
    """Open a connection and close it.

    Raises:
        UnreachableError: The connection is refused, or not accepted in time.
    """
    try:
        _open(endpoint, timeout_s).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreachableError(f"{endpoint} does not accept connections ({reason})") from error


def _open(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    """Open a connection to an endpoint, through its proxy if it has one.

    Raises:
        OSError: The endpoint or its proxy refuses the connection, or does not accept it in time.
    """
    proxy = endpoint.proxy
    if proxy is None:
        return socket.create_connection((endpoint.ip, endpoint.port), timeout_s)
    connection = socket.create_connection((proxy.host, proxy.port), timeout_s)
    try:
        _tunnel(connection, endpoint, proxy)
    except BaseException:
        connection.close()
        raise
    return connection


def _tunnel(connection: socket.socket, endpoint: Endpoint, proxy: HttpProxy) -> None:
    """Ask a proxy for a connection to an endpoint.

    Raises:
        OSError: The proxy refuses, or does not answer as an HTTP proxy.
    """
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    target = f"{host}:{endpoint.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.credentials:
        encoded = b64encode(proxy.credentials.encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {encoded}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        received = connection.recv(1)  # not a byte more: the rest belongs to the endpoint
        answer += received
        if not received or len(answer) > _MAX_PROXY_ANSWER_BYTES:
            raise OSError("the proxy closes the connection, or is not an HTTP proxy")
    status_line = answer.split(b"\r\n")[0].decode("latin-1")
    if status_line.split()[1:2] != ["200"]:
        raise OSError(f"the proxy answers {status_line!r}")


def handshake(endpoint: Endpoint, files: CertificateFiles | None, timeout_s: float) -> Handshake:
    """Perform a TLS handshake that verifies the server's certificate as a client does.

    Args:
        endpoint: The endpoint.
        files: The client's certificate files; None: no client certificate, and the
            system's authorities.
        timeout_s: Maximum wait, in seconds.
    """
    context = ssl.create_default_context(cafile=None if files is None else files.ca)
    context.set_alpn_protocols(["h2"])
    if files is not None and files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    try:
        with (
            _open(endpoint, timeout_s) as raw,
            context.wrap_socket(raw, server_hostname=endpoint.host) as wrapped,
        ):
            # A TLS 1.3 server verifies the client's certificate after the client has finished the
            # handshake. If it accepts the certificate, HTTP/2 settings arrive next.
            if not wrapped.recv(1):
                return Handshake("failed", "the connection is closed after the handshake")
            certificate = wrapped.getpeercert() or {}
            return Handshake(
                "good",
                begin_time=_time(certificate["notBefore"]),
                expire_time=_time(certificate["notAfter"]),
                protocol=wrapped.version() or "",
            )
    except ssl.SSLCertVerificationError as error:
        return Handshake("untrusted", error.verify_message)
    except ssl.SSLError as error:
        plain = error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}
        return Handshake("plain" if plain else "failed", error.reason or str(error))
    except ConnectionResetError as error:  # a gRPC server without TLS resets the connection
        return Handshake("plain", str(error))
    except OSError as error:
        return Handshake("failed", error.strerror or str(error))


def _time(text: object) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(text)), UTC)

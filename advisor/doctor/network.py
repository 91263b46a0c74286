"""How an address answers below gRPC: does it resolve, does it accept, what does it show in TLS."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

from advisor.doctor.rules import Handshake
from fslr import CertificateFiles

_SOCKETS = ("unix:", "unix-abstract:")
_PORT = 443  # what gRPC takes where an address names none


class UnreachableError(Exception):
    """Nothing accepts a connection there; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address behind the name of a service.

    Attributes:
        host: As the address names it; a certificate must be for it.
        family: Address family of ``ip``.
        ip: What the name resolves to.
        port: TCP port.
    """

    host: str
    family: int
    ip: str
    port: int


def endpoints(address: str) -> list[Endpoint]:
    """Resolve an address as gRPC would.

    Args:
        address: ``host:port``, ``dns:///host:port`` or ``ipv4:HOST:PORT,HOST:PORT``; a Unix
            socket (``unix:``, ``unix-abstract:``) has no endpoints.

    Raises:
        UnreachableError: It cannot be resolved, or its port is not a number.
    """
    if address.startswith(_SOCKETS):
        return []
    found: list[Endpoint] = []
    for target in re.sub(r"^(dns:(//[^/]*)?/?|ipv[46]:)", "", address).split(","):
        host, port = _host_and_port(target)
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
    return host.strip("[]"), int(port or _PORT)


def connect(endpoint: Endpoint, timeout_s: float) -> None:
    """Open a connection and close it.

    Raises:
        UnreachableError: Nothing accepts it within the time.
    """
    try:
        socket.create_connection((endpoint.ip, endpoint.port), timeout_s).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreachableError(
            f"{endpoint.ip} port {endpoint.port} accepts no connection ({reason})"
        ) from error


def handshake(endpoint: Endpoint, files: CertificateFiles | None, timeout_s: float) -> Handshake:
    """Speak TLS, checking the certificate against the authorities that a client would trust.

    Args:
        endpoint: Whom to speak to.
        files: The client's files; None: the system's authorities, and no certificate of our own.
        timeout_s: Longest wait, in seconds.
    """
    context = ssl.create_default_context(cafile=None if files is None else files.ca)
    context.set_alpn_protocols(["h2"])
    if files is not None and files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    try:
        with (
            socket.create_connection((endpoint.ip, endpoint.port), timeout_s) as raw,
            context.wrap_socket(raw, server_hostname=endpoint.host) as wrapped,
        ):
            # In TLS 1.3 a server looks at our certificate after our side is done; if it does not
            # refuse us then, the first thing that comes is the greeting of HTTP/2.
            if not wrapped.recv(1):
                return Handshake("failed", "it hangs up after the handshake")
            shown = wrapped.getpeercert() or {}
            return Handshake(
                "good",
                begin_time=_time(shown["notBefore"]),
                expire_time=_time(shown["notAfter"]),
                protocol=wrapped.version() or "",
            )
    except ssl.SSLCertVerificationError as error:
        return Handshake("untrusted", error.verify_message)
    except ssl.SSLError as error:
        plain = error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}
        return Handshake("plain" if plain else "failed", error.reason or str(error))
    except ConnectionResetError as error:  # a gRPC server without TLS hangs up on the greeting
        return Handshake("plain", str(error))
    except OSError as error:
        return Handshake("failed", error.strerror or str(error))


def _time(stated: object) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(stated)), UTC)

"""Parts of gRPC addresses, and which of them lead to this machine only."""

from __future__ import annotations

import ipaddress
import re

_RESOLVER = re.compile(r"^(dns:(//[^/]*)?/?|ipv[46]:)")
_SOCKETS = ("unix:", "unix-abstract:")


def is_loopback_host(host: str) -> bool:
    """Return whether a host, given as a name or an IP address, is this machine's loopback."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_socket(address: str) -> bool:
    """Return whether a gRPC address is a Unix socket."""
    return address.startswith(_SOCKETS)


def target_hosts(address: str) -> list[str]:
    """Return the hosts of a gRPC address, without ports and brackets; none for a Unix socket.

    Args:
        address: As for :func:`is_local_address`.
    """
    if is_socket(address):
        return []
    return [_host(target) for target in without_scheme(address).split(",")]


def without_scheme(address: str) -> str:
    """Return the targets of a gRPC address, without ``dns:``, ``ipv4:`` or ``ipv6:``."""
    return _RESOLVER.sub("", address)


def _host(target: str) -> str:
    if target.startswith("["):
        return target[1:].partition("]")[0]
    return target if target.count(":") > 1 else target.partition(":")[0]


def is_local_address(address: str) -> bool:
    """Return whether calls to a gRPC address never leave this machine.

    Args:
        address: ``host:port``, ``ipv4:HOST:PORT,HOST:PORT``, ``dns:...`` or ``unix:PATH``.
    """
    return all(is_loopback_host(host) for host in target_hosts(address))

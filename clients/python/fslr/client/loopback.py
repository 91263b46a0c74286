"""Which addresses lead to this machine only."""

from __future__ import annotations

import ipaddress
import re

_RESOLVER = re.compile(r"^(dns:(//[^/]*)?/?|ipv[46]:)")
_PORT = re.compile(r":\d+$")


def is_loopback_host(host: str) -> bool:
    """Return whether a host, given as a name or an IP address, is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local_address(address: str) -> bool:
    """Return whether calls to a gRPC address never leave this machine.

    Args:
        address: ``host:port``, ``ipv4:HOST:PORT,HOST:PORT``, ``dns:...`` or ``unix:PATH``.
    """
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    targets = _RESOLVER.sub("", address).split(",")
    return all(is_loopback_host(_PORT.sub("", target).strip("[]")) for target in targets)

"""Which HTTP proxy calls go through.

gRPC takes the proxy from the environment: the first of ``grpc_proxy``, ``https_proxy`` and
``http_proxy`` that is set, in lower case only. The first of ``no_grpc_proxy`` and ``no_proxy`` that
is set lists hosts that are called directly. Its rules are those of gRPC's
``http_proxy_mapper.cc``: an entry is a host, a domain with its hosts, or a network such as
``10.0.0.0/8``.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from fslr.client.loopback import is_loopback_host, target_hosts

_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_DIRECT_VARIABLES = ("no_grpc_proxy", "no_proxy")
_DEFAULT_PORT = 443  # gRPC's default

DIRECT_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.enable_http_proxy", 0),
    # The variable GRPC_ADDRESS_HTTP_PROXY names a proxy for single IP addresses.
    ("grpc.address_http_proxy_enabled_addresses", ""),
)
"""Options of a channel whose calls never go through a proxy."""


@dataclass(frozen=True, slots=True)
class HttpProxy:
    """An HTTP proxy.

    Attributes:
        variable: The environment variable that names it.
        host: Its host name or IP address.
        port: Its TCP port.
        direct_variable: The environment variable that lists hosts to call directly.
        credentials: ``user:password`` for the proxy; empty: none.
    """

    variable: str
    host: str
    port: int
    direct_variable: str
    credentials: str = field(default="", repr=False)

    @property
    def place(self) -> str:
        """Its ``host:port``, without credentials."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def describe(self) -> str:
        """Return which calls go through the proxy, and why."""
        return f"calls go through the proxy {self.place}, which {self.variable} names"

    def remedy(self, address: str) -> str:
        """Return how to call an address directly."""
        return f"to connect directly, add {target_hosts(address)[0]} to {self.direct_variable}"


def channel_options(address: str) -> tuple[tuple[str, int | str], ...]:
    """Return the channel options that keep calls away from proxies where none may be used.

    Args:
        address: The address of the service.
    """
    return DIRECT_OPTIONS if _is_direct(address) else ()


def find_proxy(address: str, variables: Mapping[str, str] = os.environ) -> HttpProxy | None:
    """Return the proxy that calls to an address go through; None: they go directly.

    Args:
        address: The address of the service, as clients use it.
        variables: The environment variables.
    """
    variable = next((name for name in _PROXY_VARIABLES if name in variables), None)
    if variable is None or _is_direct(address):
        return None
    try:
        parts = urlsplit(variables[variable])
        host, port = parts.hostname, parts.port
    except ValueError:
        return None  # gRPC logs that it cannot use it, and connects directly
    if parts.scheme != "http" or not host:
        return None
    direct_variable = next((name for name in _DIRECT_VARIABLES if name in variables), "no_proxy")
    if _is_listed(target_hosts(address)[0], variables.get(direct_variable, "")):
        return None
    credentials = unquote(parts.netloc.rpartition("@")[0])
    return HttpProxy(variable, host, port or _DEFAULT_PORT, direct_variable, credentials)


def proxy_note(address: str) -> str:
    """Return what the message of a failed call ends with: the proxy in force, or nothing.

    Args:
        address: The address of the service.
    """
    proxy = find_proxy(address)
    return "" if proxy is None else f"; {proxy.describe()}; {proxy.remedy(address)}"


def _is_direct(address: str) -> bool:
    """Return whether calls to an address never go through a proxy.

    Those are calls to this machine, and to a list of replicas: gRPC asks a proxy for the whole list
    as if it were one host.
    """
    hosts = target_hosts(address)
    return len(hosts) != 1 or _is_this_machine(hosts[0])


def _is_this_machine(host: str) -> bool:
    return (
        is_loopback_host(host)
        or host in {"0.0.0.0", "::"}  # noqa: S104 - a connection to them reaches this machine
        or host.lower().rstrip(".").endswith(".localhost")  # RFC 6761
        or host == socket.gethostname()
    )


def _is_listed(host: str, entries: str) -> bool:
    """Return whether a list of hosts and networks includes a host."""
    listed = filter(None, (entry.strip().lower() for entry in entries.split(",")))
    return any(
        f".{host.lower()}".endswith(f".{entry.removeprefix('.')}") or _is_in_network(host, entry)
        for entry in listed
    )


def _is_in_network(host: str, network: str) -> bool:
    if "/" not in network:
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False

"""Parses and checks the URL of Redis, and redacts its passwords.

=====================================  =========================================================
``redis://[user:password@]host:port``  one server; append ``/1`` for database 1
``unix:///path/to/socket``             one server on this machine
``redis+sentinel://H,H,H/SERVICE``     the primary of the service that these Sentinels monitor
``redis+cluster://H,H,H``              a Cluster; some of its nodes are enough
=====================================  =========================================================

With ``rediss`` instead of ``redis``, all connections use TLS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

FORMS = (
    "redis://[user:password@]host:port[/db], unix:///path/to/socket, "
    "redis+sentinel://[user:password@]host:port,host:port/SERVICE[/db] or "
    "redis+cluster://[user:password@]host:port,host:port (rediss... for TLS)"
)
_PORT, _SENTINEL_PORT = 6379, 26379
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@/\s]+))(?::(?P<port>.*))?")
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_CERT_REQS = ("none", "optional", "required")


class Topology(Enum):
    """The kind of deployment."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES = {
    "redis": (Topology.STANDALONE, False),
    "rediss": (Topology.STANDALONE, True),
    "unix": (Topology.STANDALONE, False),
    "redis+sentinel": (Topology.SENTINEL, False),
    "rediss+sentinel": (Topology.SENTINEL, True),
    "redis+cluster": (Topology.CLUSTER, False),
    "rediss+cluster": (Topology.CLUSTER, True),
}


class AddressError(ValueError):
    """The URL is not valid; the message never contains a password."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; the forms are {FORMS}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and password for Redis; without them, no authentication.

    Attributes:
        username: The user; None: the default user.
        password: The password; None: no authentication.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed URL of Redis.

    Attributes:
        topology: The kind of deployment.
        hosts: Hosts and ports of the server, of the Sentinels, or of nodes of the Cluster.
        socket: Path of a Unix socket, instead of hosts.
        service: The service's name in the Sentinels' configuration.
        database: Number of the database.
        credentials: Credentials for Redis.
        sentinel_credentials: Credentials for the Sentinels.
        tls: redis-py's arguments for TLS; None: no TLS.
        redacted: The URL without passwords, for messages.
    """

    topology: Topology
    hosts: tuple[tuple[str, int], ...]
    redacted: str
    socket: str | None = None
    service: str = ""
    database: int = 0
    credentials: Credentials = field(default_factory=Credentials)
    sentinel_credentials: Credentials = field(default_factory=Credentials)
    tls: Mapping[str, Any] | None = None


def parse_address(url: str) -> RedisAddress:
    """Parse a URL.

    Args:
        url: The URL, in one of the forms described in this module's docstring.

    Raises:
        AddressError: The URL has none of these forms.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise AddressError("the brackets of an IPv6 address are not closed") from None
    if parts.scheme not in _SCHEMES or not url[len(parts.scheme) :].startswith("://"):
        raise AddressError("the URL does not start with a known scheme")
    if parts.fragment or url.endswith("#"):
        raise AddressError("the URL contains '#'; write %23 in a name or password")
    if "@" in parts.query:
        raise AddressError("the URL contains '@' after '?'; write %3F or %40 in a name or password")
    topology, encrypted = _SCHEMES[parts.scheme]
    userinfo, hosts, socket = _ends(parts, topology)
    options = _options(parts.query)
    service, database = _place(parts, topology, options)
    credentials = _credentials(userinfo, options)
    sentinel_credentials = Credentials(
        options.pop("sentinel_username", None), options.pop("sentinel_password", None)
    )
    if sentinel_credentials != Credentials() and topology is not Topology.SENTINEL:
        raise AddressError("sentinel_username and sentinel_password need redis+sentinel://")
    tls = _tls(options)
    if tls and not encrypted:
        raise AddressError(f"{min(tls)} needs a URL that starts with rediss")
    if options:
        raise AddressError(f"the option {min(options)!r} is not known")
    return RedisAddress(
        topology,
        hosts,
        _redacted(url, userinfo, parts.query),
        socket=socket,
        service=service,
        database=database,
        credentials=credentials,
        sentinel_credentials=sentinel_credentials,
        tls=tls if encrypted else None,
    )


def redacted(url: str) -> str:
    """Return a URL without passwords; for a URL that is not valid, only its scheme."""
    try:
        return parse_address(url).redacted
    except AddressError:
        scheme = url.partition("://")[0]
        return f"{scheme}://..." if scheme in _SCHEMES else "..."


def _ends(
    parts: SplitResult, topology: Topology
) -> tuple[str, tuple[tuple[str, int], ...], str | None]:
    """Return the part with user and password, the hosts, and the path of a socket."""
    userinfo, at, listed = parts.netloc.rpartition("@")
    if parts.scheme == "unix":
        if parts.netloc != userinfo + at or parts.path in {"", "/"}:
            raise AddressError("unix:// needs the absolute path of a socket and no host")
        return userinfo, (), unquote(parts.path)
    hosts = _hosts(listed, _SENTINEL_PORT if topology is Topology.SENTINEL else _PORT)
    if topology is Topology.STANDALONE and len(hosts) > 1:
        raise AddressError("redis:// takes one host; only Sentinels and Clusters have several")
    return userinfo, hosts, None


def _hosts(listed: str, default_port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for entry in listed.split(",") if listed else ["localhost"]:
        match = _HOST.fullmatch(entry)
        if match is None:
            raise AddressError("a host is missing, or an IPv6 address has no [brackets]")
        port = match["port"]
        if port is not None and not (
            port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536
        ):
            # The text is not shown: it may be a part of a password with an unescaped '/' or '@'.
            raise AddressError(
                "a port is not a number from 1 to 65535 (percent-encode ':', '/', '@' and '?' in "
                "passwords)"
            )
        found.append((match["v6"] or unquote(match["name"]), int(port or default_port)))
    return tuple(found)


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise AddressError("the options do not have the form ?name=value&name=value") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise AddressError("an option is given twice")
    return options


def _place(parts: SplitResult, topology: Topology, options: dict[str, str]) -> tuple[str, int]:
    """Return the Sentinels' name of the service, and the number of the database."""
    service, given = "", options.pop("db", None)
    path = [] if parts.scheme == "unix" else [unquote(p) for p in parts.path.split("/")[1:] if p]
    if topology is Topology.SENTINEL:
        if not path:
            raise AddressError("the Sentinels' name of the service is missing after the hosts")
        service = path.pop(0)
    if topology is Topology.CLUSTER and (path or given):
        raise AddressError("a Cluster has no databases and no service name after the hosts")
    if len(path) + (given is not None) > 1:
        raise AddressError("more than one database is given")
    database = path[0] if path else given or "0"
    if not (database.isascii() and database.isdecimal() and len(database) <= 9):
        raise AddressError("the database is not a number")
    return service, int(database)


def _credentials(userinfo: str, options: dict[str, str]) -> Credentials:
    username, colon, password = userinfo.partition(":")
    stated = Credentials(unquote(username) or None, unquote(password) if colon else None)
    asked = Credentials(options.pop("username", None), options.pop("password", None))
    if stated != Credentials() and asked != Credentials():
        raise AddressError("user and password are given twice")
    found = stated if stated != Credentials() else asked
    if found.username and found.password is None:
        raise AddressError("a user is given without a password (user:password@)")
    return found


def _tls(options: dict[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {name: options.pop(name) for name in _TLS_FILES if name in options}
    if "ssl_cert_reqs" in options:
        tls["ssl_cert_reqs"] = options.pop("ssl_cert_reqs")
        if tls["ssl_cert_reqs"] not in _CERT_REQS:
            raise AddressError(f"ssl_cert_reqs is not one of {', '.join(_CERT_REQS)}")
    if "ssl_check_hostname" in options:
        wanted = options.pop("ssl_check_hostname").lower()
        if wanted not in _YES_NO:
            raise AddressError("ssl_check_hostname is neither true nor false")
        tls["ssl_check_hostname"] = _YES_NO[wanted]
    return tls


def _redacted(url: str, userinfo: str, query: str) -> str:
    before, _, behind = url.partition("://")
    behind = behind.partition("?")[0]
    if userinfo:
        username = userinfo.partition(":")[0]
        behind = f"{username}:***{behind[len(userinfo) :]}"
    hidden = "&".join(
        f"{name}=***" if name.endswith("password") else f"{name}={value}"
        for name, _, value in (pair.partition("=") for pair in query.split("&") if pair)
    )
    return f"{before}://{behind}" + (f"?{hidden}" if hidden else "")

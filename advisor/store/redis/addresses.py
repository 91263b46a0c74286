"""Where Redis is: what a URL says, checked, and a form of it that shows no password.

=====================================  =========================================================
``redis://[user:password@]host:port``  one server, ``/1`` behind it for another database than 0
``unix:///path/to/socket``             one server on this machine
``redis+sentinel://H,H,H/SERVICE``     the server that these Sentinels call the service's primary
``redis+cluster://H,H,H``              a Cluster; some of its nodes are enough
=====================================  =========================================================

With ``rediss`` in the place of ``redis`` everything is encrypted.
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
    """What stands behind the address."""

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
    """The URL cannot be used; the message shows no password."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; the forms are {FORMS}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we say that we are; None: nothing is said.

    Attributes:
        username: The user; None with a password: the default user.
        password: The password.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is, and how to be let in.

    Attributes:
        topology: What stands there.
        hosts: Hosts and ports: of the server, of the Sentinels, or of nodes of the Cluster.
        socket: Path of a Unix socket, instead of hosts.
        service: The Sentinels' name of the service.
        database: Number of the database.
        credentials: For Redis.
        sentinel_credentials: For the Sentinels.
        tls: Arguments of redis-py for TLS; None: nothing is encrypted.
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
    """Return what a URL says.

    Args:
        url: The URL; see the top of this module.

    Raises:
        AddressError: It has none of the known forms.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise AddressError("the brackets of an IPv6 address are not closed") from None
    if parts.scheme not in _SCHEMES or not url[len(parts.scheme) :].startswith("://"):
        raise AddressError("it does not begin with a known scheme")
    if parts.fragment or url.endswith("#"):
        raise AddressError("it holds '#'; write %23 inside a name or password")
    if "@" in parts.query:
        raise AddressError("it holds '@' behind '?'; write %3F or %40 inside a name or password")
    topology, encrypted = _SCHEMES[parts.scheme]
    userinfo, hosts, socket = _ends(parts, topology)
    options = _options(parts.query)
    service, database = _place(parts, topology, options)
    credentials = _credentials(userinfo, options)
    sentinel_credentials = Credentials(
        options.pop("sentinel_username", None), options.pop("sentinel_password", None)
    )
    if sentinel_credentials != Credentials() and topology is not Topology.SENTINEL:
        raise AddressError("sentinel_username and sentinel_password belong to redis+sentinel://")
    tls = _tls(options)
    if tls and not encrypted:
        raise AddressError(f"{min(tls)} needs a URL that begins with rediss")
    if options:
        raise AddressError(f"there is no option {min(options)!r}")
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
    """Return a URL as it may be shown; of one that is not understood, its scheme alone."""
    try:
        return parse_address(url).redacted
    except AddressError:
        scheme = url.partition("://")[0]
        return f"{scheme}://..." if scheme in _SCHEMES else "..."


def _ends(
    parts: SplitResult, topology: Topology
) -> tuple[str, tuple[tuple[str, int], ...], str | None]:
    """Return user and password as they stand there, the hosts, and the path of a socket."""
    userinfo, at, listed = parts.netloc.rpartition("@")
    if parts.scheme == "unix":
        if parts.netloc != userinfo + at or parts.path in {"", "/"}:
            raise AddressError("unix:// takes the absolute path of a socket and no host")
        return userinfo, (), unquote(parts.path)
    hosts = _hosts(listed, _SENTINEL_PORT if topology is Topology.SENTINEL else _PORT)
    if topology is Topology.STANDALONE and len(hosts) > 1:
        raise AddressError("redis:// takes one host; several are of Sentinels or of a Cluster")
    return userinfo, hosts, None


def _hosts(listed: str, default_port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for entry in listed.split(",") if listed else ["localhost"]:
        match = _HOST.fullmatch(entry)
        if match is None:
            raise AddressError("a host is missing, or an IPv6 address stands without [brackets]")
        port = match["port"]
        if port is not None and not (
            port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536
        ):
            # Not shown: what stands here may be the end of a password with a bare '/' or '@' in it.
            raise AddressError(
                "a port is no number from 1 to 65535 (is a ':', '/', '@' or '?' of a password "
                "not percent-encoded?)"
            )
        found.append((match["v6"] or unquote(match["name"]), int(port or default_port)))
    return tuple(found)


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise AddressError("its options are not of the form ?name=value&name=value") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise AddressError("an option is given twice")
    return options


def _place(parts: SplitResult, topology: Topology, options: dict[str, str]) -> tuple[str, int]:
    """Return the service's name and the number of the database."""
    service, given = "", options.pop("db", None)
    path = [] if parts.scheme == "unix" else [unquote(p) for p in parts.path.split("/")[1:] if p]
    if topology is Topology.SENTINEL:
        if not path:
            raise AddressError("the Sentinels' name of the service is missing behind the hosts")
        service = path.pop(0)
    if topology is Topology.CLUSTER and (path or given):
        raise AddressError("a Cluster has no databases and no service name behind the hosts")
    if len(path) + (given is not None) > 1:
        raise AddressError("more than one database is named")
    database = path[0] if path else given or "0"
    if not (database.isascii() and database.isdecimal() and len(database) <= 9):
        raise AddressError("the database is no number")
    return service, int(database)


def _credentials(userinfo: str, options: dict[str, str]) -> Credentials:
    username, colon, password = userinfo.partition(":")
    stated = Credentials(unquote(username) or None, unquote(password) if colon else None)
    asked = Credentials(options.pop("username", None), options.pop("password", None))
    if stated != Credentials() and asked != Credentials():
        raise AddressError("user and password are given twice")
    found = stated if stated != Credentials() else asked
    if found.username and found.password is None:
        raise AddressError("a user is named without a password (user:password@)")
    return found


def _tls(options: dict[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {name: options.pop(name) for name in _TLS_FILES if name in options}
    if "ssl_cert_reqs" in options:
        tls["ssl_cert_reqs"] = options.pop("ssl_cert_reqs")
        if tls["ssl_cert_reqs"] not in _CERT_REQS:
            raise AddressError(f"ssl_cert_reqs is none of {', '.join(_CERT_REQS)}")
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

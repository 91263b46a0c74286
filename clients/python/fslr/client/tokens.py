"""The token that a client shows: given, or in a file that is read again when it changes."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from fslr.errors import TokenError

_SENDABLE = re.compile(r"[\x21-\x7e]+")  # what a header can carry


class TokenSource:
    """Gives the token at each call; its ``repr`` does not show it.

    Args:
        token: The token itself; None: it lies in ``path``, or there is none.
        path: A file that holds the token alone, such as a mounted secret.

    Raises:
        TokenError: There is a token or a file that cannot be used.
    """

    def __init__(self, token: str | None = None, path: Path | None = None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._token = None if token is None else _checked(token, "the token")
        if path is not None:
            self._read(path)

    @classmethod
    def of_environment(cls, variables: Mapping[str, str] = os.environ) -> Self:
        """Return what ``FSLR_TOKEN`` or ``FSLR_TOKEN_FILE`` give; the first counts.

        Raises:
            TokenError: What they give cannot be used.
        """
        path = variables.get("FSLR_TOKEN_FILE")
        token = variables.get("FSLR_TOKEN") or None
        return cls(token, Path(path) if path and token is None else None)

    def __repr__(self) -> str:
        """Return where the token comes from, and not the token."""
        return f"TokenSource(path={self._path!r}, given={self.given})"

    @property
    def given(self) -> bool:
        """Whether there is a token."""
        return self._token is not None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what a call carries; a file that cannot be read leaves the last good token."""
        if self._path is not None:
            try:
                self._read(self._path)
            except TokenError:
                if self._token is None:
                    raise
        return () if self._token is None else (("authorization", f"Bearer {self._token}"),)

    def _read(self, path: Path) -> None:
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp == self._stamp:
                return
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenError(f"the token file {path} cannot be read: {error}") from error
        self._token = _checked(text.strip(), f"what {path} holds")
        self._stamp = stamp


def _checked(token: str, what: str) -> str:
    """Return the token.

    Raises:
        TokenError: It is empty, or no header can carry it.
    """
    if not _SENDABLE.fullmatch(token):
        raise TokenError(
            f"{what} is no token: it is empty, or holds spaces or other than ASCII characters; a "
            "token reads fslr_{project}_{id}_{secret}"
        )
    return token


def stays_on_this_machine(address: str) -> bool:
    """Return whether calls to an address never leave this machine.

    Args:
        address: As gRPC takes it: ``host:port``, ``ipv4:HOST:PORT,HOST:PORT``, ``unix:PATH``.
    """
    if address.startswith(("unix:", "unix-abstract:")):  # a host's name may begin so too
        return True
    targets = re.sub(r"^(dns:(//[^/]*)?/?|ipv[46]:)", "", address).split(",")
    return all(_is_loopback(re.sub(r":\d+$", "", target).strip("[]")) for target in targets)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""The token that authenticates a client: given as text, or in a file that may change."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Self

from fslr.client.file_watch import WatchedFiles
from fslr.errors import TokenError

_log = logging.getLogger(__name__)
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")  # all that a gRPC header can carry


class TokenSource:
    """Provides the token for each call; its ``repr`` does not reveal the token.

    Args:
        token: The token. None: it is in ``path``, or there is no token.
        path: A file that contains only the token, such as a mounted secret. Ignored if ``token`` is
            given.

    Raises:
        TokenError: The token is not valid, or the file cannot be read.
    """

    def __init__(self, token: str | None = None, path: Path | None = None) -> None:
        self._token = None if token is None else _checked(token, "the token")
        self._path = path if token is None else None
        self._file = (
            None if self._path is None else WatchedFiles([self._path], partial(_read, self._path))
        )

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> Self:
        """Return the token of ``FSLR_TOKEN``, else of the file that ``FSLR_TOKEN_FILE`` names.

        Raises:
            TokenError: The token is not valid, or the file cannot be read.
        """
        path = variables.get("FSLR_TOKEN_FILE")
        return cls(variables.get("FSLR_TOKEN") or None, Path(path) if path else None)

    def __repr__(self) -> str:
        """Return where the token comes from, but not the token."""
        return f"TokenSource(path={self._path!r}, given={self.given})"

    @property
    def given(self) -> bool:
        """Whether there is a token."""
        return self._token is not None or self._file is not None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call: the token, or nothing.

        A changed file is read again. If it cannot be used, the last good token stays in use.
        """
        token = self._token
        if self._file is not None:
            try:
                self._file.refresh()
            except TokenError as error:
                _log.warning("the last good token stays in use: %s", error)
            token = self._file.current
        return () if token is None else (("authorization", f"Bearer {token}"),)


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise TokenError(f"the token file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TokenError(f"the token file {path} cannot be read: {error}") from error
    return _checked(text.strip(), f"the content of {path}")


def _checked(token: str, what: str) -> str:
    """Return the token.

    Raises:
        TokenError: The token is empty, or contains characters that no header can carry.
    """
    if not _VISIBLE_ASCII.fullmatch(token):
        raise TokenError(
            f"{what} is not a valid token: it is empty, or contains spaces or non-ASCII "
            "characters; a token has the form fslr_{project}_{id}_{secret}"
        )
    return token

"""Tokens: their format, and the record that is stored for each.

A token has the form ``fslr_{project}_{id}_{secret}``. The prefix lets secret scanners find leaked
tokens, project and id locate the record, and the secret authenticates the holder. Only the SHA-256
of the secret is stored. The secret has 256 random bits, so the hash needs no salt.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime

from advisor.auth.roles import Grant, Role
from advisor.policy import InvalidValueError
from advisor.policy.control_characters import check_text

_SHAPE = re.compile(r"fslr_([a-z][a-z0-9-]{0,62})_([0-9a-f]{12})_([0-9a-f]{64})")
_ID_BYTES, _SECRET_BYTES = 6, 32
_MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Token:
    """A token with its secret, which only its holder has.

    Attributes:
        project: The project that it is for.
        id: Identifies it in lists and in the audit log.
        secret: Authenticates its holder; left out of ``repr``.
    """

    project: str
    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls, project: str) -> Token:
        """Return a new token with a random id and secret."""
        return cls(project, secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Token | None:
        """Return the token with this text, or None if the text is not a token."""
        match = _SHAPE.fullmatch(text)
        return cls(*match.groups()) if match else None

    @property
    def text(self) -> str:
        """The whole token, as its holder sends it."""
        return f"fslr_{self.project}_{self.id}_{self.secret}"

    @property
    def digest(self) -> str:
        """SHA-256 of the secret, in hexadecimal."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """The stored record of a token.

    Attributes:
        project: The project that it is for.
        id: Identifies it.
        name: Who uses it or what it is for, chosen by its creator.
        role: What its holder may do.
        digest: SHA-256 of its secret, in hexadecimal.
        create_time: When it was created, UTC.
        expire_time: When it expires, UTC; None: never.

    Raises:
        InvalidValueError: The name is empty, too long, or has control characters.
    """

    project: str
    id: str
    name: str
    role: Role
    digest: str = field(repr=False)
    create_time: datetime
    expire_time: datetime | None = None

    def __post_init__(self) -> None:
        """Check the name."""
        if not 1 <= len(self.name) <= _MAX_NAME_CHARACTERS:
            raise InvalidValueError(
                "name",
                f"{len(self.name)} characters, but a token's name has 1 to {_MAX_NAME_CHARACTERS}",
            )
        check_text("name", self.name)

    def grant(self) -> Grant:
        """Return the grant of its holder."""
        return Grant(self.name, f"token {self.id}", self.project, self.role, self.expire_time)


_NO_DIGEST = "0" * 64


def is_valid(token: Token, record: TokenRecord | None) -> bool:
    """Return whether a token's secret is that of its record.

    The comparison takes the same time for an unknown token as for a wrong secret.

    Args:
        token: The token that the caller sent.
        record: The record with the token's project and id; None: there is none.
    """
    stored = _NO_DIGEST if record is None else record.digest
    return hmac.compare_digest(token.digest.encode(), stored.encode()) and record is not None

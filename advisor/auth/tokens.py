"""Tokens: how they are written, and what is kept of them.

A token reads ``fslr_{project}_{id}_{secret}``: the prefix lets scanners find leaked ones, project
and id say where its record lies, the secret proves it. The secret has 256 random bits, so that its
plain SHA-256 cannot be guessed back, and that is all that is stored.
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
    """A token in the clear; only its holder has it.

    Attributes:
        project: The project that it is for.
        id: Names it in lists and in the audit.
        secret: Proves it; not shown by ``repr``.
    """

    project: str
    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls, project: str) -> Token:
        """Return a token that nobody had before."""
        return cls(project, secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Token | None:
        """Return the token that a text is, or None."""
        match = _SHAPE.fullmatch(text)
        return cls(*match.groups()) if match else None

    @property
    def text(self) -> str:
        """What its holder sends."""
        return f"fslr_{self.project}_{self.id}_{self.secret}"

    @property
    def digest(self) -> str:
        """What is stored of the secret, in hexadecimal."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is kept of a token.

    Attributes:
        project: The project that it is for.
        id: Names it.
        name: Whose it is or what it is for, in the words of whoever made it.
        role: What may be done with it.
        digest: SHA-256 of its secret, in hexadecimal.
        create_time: When it was made, UTC.
        expire_time: When it ends, UTC; None: never.

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
        """Return what its holder has."""
        return Grant(self.name, f"token {self.id}", self.project, self.role, self.expire_time)


_NO_DIGEST = "0" * 64


def is_proved(token: Token, record: TokenRecord | None) -> bool:
    """Return whether a token is the recorded one.

    Takes as long for an unknown token as for a wrong secret, whatever the secret.

    Args:
        token: What the caller sent.
        record: What is kept under the token's project and id; None: nothing.
    """
    kept = _NO_DIGEST if record is None else record.digest
    return hmac.compare_digest(token.digest.encode(), kept.encode()) and record is not None

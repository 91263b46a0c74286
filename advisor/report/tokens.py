"""Tokens: who may call the service."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from advisor.auth.tokens import TokenRecord


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token in a list, without its secret.

    Attributes:
        token_id: The token's id.
        name: Holder or purpose of the token.
        role: What its holder may do, in words.
        create_time: When it was created, UTC.
        expire_time: When it expires, UTC; None: never.
        is_expired: Whether it has expired.
    """

    token_id: str
    name: str
    role: str
    create_time: datetime
    expire_time: datetime | None
    is_expired: bool

    @classmethod
    def of(cls, record: TokenRecord, now: datetime) -> TokenRow:
        """Return the row of a token's record.

        Args:
            record: The record.
            now: The current time, UTC.
        """
        expires = record.expire_time
        return cls(
            record.id,
            record.name,
            record.role.word,
            record.create_time,
            expires,
            expires is not None and expires <= now,
        )

    @property
    def expiry(self) -> str:
        """When the token expires, in words."""
        if self.expire_time is None:
            return "never expires"
        verb = "expired" if self.is_expired else "expires"
        return f"{verb} {self.expire_time:%Y-%m-%d %H:%M} UTC"

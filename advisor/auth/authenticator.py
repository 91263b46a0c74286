"""Proves who calls: by token or by certificate, also while the store is away."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cachetools import LRUCache

from advisor.auth.certificate_roles import CertificateRoles
from advisor.auth.roles import Grant
from advisor.auth.tokens import Token, TokenRecord, is_proved
from advisor.errors import StoreUnavailableError, UnauthenticatedError

_KEPT_TOKENS = 10_000


class TokenRecords(Protocol):
    """Where the records of tokens are kept."""

    async def get(self, project: str, token_id: str) -> TokenRecord | None:
        """Return a token's record, or None if there is none.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Believed:
    grant: Grant
    looked_up: float  # of the monotonic clock


class Authenticator:
    """Turns tokens and names of certificates into grants.

    A token that was in force is believed for ``recheck_s`` seconds, and for as long as the store is
    away, so that its holder goes on being answered; one that was never seen is not.

    Args:
        tokens: Where tokens are recorded.
        certificates: The roles of certificates; None: certificates prove nothing.
        now: The clock.
        recheck_s: How long a token is believed before it is looked up again, in seconds.
    """

    def __init__(
        self,
        tokens: TokenRecords,
        certificates: CertificateRoles | None,
        now: Callable[[], datetime],
        *,
        recheck_s: float,
    ) -> None:
        self._recheck_s = recheck_s
        self._tokens = tokens
        self._certificates = certificates
        self._now = now
        # By the hash of the token's text, so that memory holds no token.
        self._believed: LRUCache[bytes, _Believed] = LRUCache(_KEPT_TOKENS)

    async def grant(self, token: str | None, certificate_names: Iterable[str]) -> Grant:
        """Return what a caller proved to have; a token counts before a certificate.

        Args:
            token: The token that it sent; None: none.
            certificate_names: The names in its certificate, which was verified.

        Raises:
            UnauthenticatedError: It proved nothing.
            StoreUnavailableError: Its token was never seen, and the store is away.
        """
        if token is not None:
            return await self._by_token(token)
        names = list(certificate_names)
        found = self._certificates.grant(names) if self._certificates else None
        if found is not None:
            return found
        if names:
            raise UnauthenticatedError(
                f"the call has no token, and the certificate's names ({', '.join(names)}) have no "
                "role here"
            )
        raise UnauthenticatedError("the call has no token")

    async def _by_token(self, text: str) -> Grant:
        key = hashlib.sha256(text.encode()).digest()
        known = self._believed.get(key)
        if known is None or time.monotonic() - known.looked_up > self._recheck_s:
            try:
                found = await self._looked_up(text)
            except StoreUnavailableError:
                if known is None:
                    raise
                found = known.grant
            except UnauthenticatedError:
                self._believed.pop(key, None)
                raise
            # Also while the store is away: not every call shall wait for it.
            self._believed[key] = _Believed(found, time.monotonic())
        else:
            found = known.grant
        if found.expire_time is not None and found.expire_time <= self._now():
            raise UnauthenticatedError(f"{found} expired at {found.expire_time:%Y-%m-%d %H:%M} UTC")
        return found

    async def _looked_up(self, text: str) -> Grant:
        token = Token.parse(text)
        record = await self._tokens.get(token.project, token.id) if token else None
        # One message for all that is wrong: nobody learns which identifiers exist.
        if token is None or not is_proved(token, record) or record is None:
            raise UnauthenticatedError("the token is none that is in force here")
        return record.grant()

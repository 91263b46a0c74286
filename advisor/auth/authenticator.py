"""Authenticates callers by token or client certificate, even while the store is unavailable."""

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
from advisor.auth.tokens import Token, TokenRecord, is_valid
from advisor.errors import StoreUnavailableError, UnauthenticatedError

_MAX_CACHED_TOKENS = 10_000


class TokenRecords(Protocol):
    """Reads token records."""

    async def get(self, project: str, token_id: str) -> TokenRecord | None:
        """Return a token's record, or None if it does not exist.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class _CachedGrant:
    grant: Grant
    looked_up: float  # monotonic clock, seconds


class Authenticator:
    """Turns tokens and certificate names into grants.

    A valid token is cached for ``cache_s`` seconds, and for as long as the store is unavailable, so
    its holder can go on. A token that is not cached is refused while the store is unavailable.

    Args:
        tokens: Reads the token records.
        certificates: The certificate roles; None: certificates do not authenticate callers.
        now: Returns the current time, UTC.
        cache_s: How long a valid token is cached before it is looked up again, in seconds.
    """

    def __init__(
        self,
        tokens: TokenRecords,
        certificates: CertificateRoles | None,
        now: Callable[[], datetime],
        *,
        cache_s: float,
    ) -> None:
        self._cache_s = cache_s
        self._tokens = tokens
        self._certificates = certificates
        self._now = now
        # The keys are hashes, so that no token is kept in memory.
        self._cache: LRUCache[bytes, _CachedGrant] = LRUCache(_MAX_CACHED_TOKENS)

    async def authenticate(self, token: str | None, certificate_names: Iterable[str]) -> Grant:
        """Return the caller's grant; if it sent a token, its certificate is ignored.

        Args:
            token: The token that the caller sent; None: none.
            certificate_names: The names in the caller's verified certificate.

        Raises:
            UnauthenticatedError: Neither the token nor the certificate is valid here.
            StoreUnavailableError: The token is not cached and the store is unavailable.
        """
        if token is not None:
            return await self._authenticate_token(token)
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

    async def _authenticate_token(self, text: str) -> Grant:
        key = hashlib.sha256(text.encode()).digest()
        cached = self._cache.get(key)
        if cached is None or time.monotonic() - cached.looked_up > self._cache_s:
            try:
                grant = await self._look_up(text)
            except StoreUnavailableError:
                if cached is None:
                    raise
                grant = cached.grant
            except UnauthenticatedError:
                self._cache.pop(key, None)
                raise
            # Renewed even if the store is unavailable, so that not every call waits for it.
            self._cache[key] = _CachedGrant(grant, time.monotonic())
        else:
            grant = cached.grant
        if grant.expire_time is not None and grant.expire_time <= self._now():
            raise UnauthenticatedError(f"{grant} expired at {grant.expire_time:%Y-%m-%d %H:%M} UTC")
        return grant

    async def _look_up(self, text: str) -> Grant:
        token = Token.parse(text)
        record = await self._tokens.get(token.project, token.id) if token else None
        # The same message for every failure, so that it does not reveal which token ids exist.
        if token is None or not is_valid(token, record) or record is None:
            raise UnauthenticatedError("the token is not valid here")
        return record.grant()

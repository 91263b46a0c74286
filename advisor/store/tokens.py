"""Token records in Redis; the tokens themselves are never stored."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from redis.asyncio import Redis

from advisor.auth.roles import Role
from advisor.auth.tokens import TokenRecord
from advisor.errors import StoreDamagedError
from advisor.policy import InvalidValueError
from advisor.registry.audit import AuditOrigin
from advisor.store import keys
from advisor.store.audit import write_arguments, write_keys
from advisor.store.lua import load_script
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.replies import TokenOutcome
from advisor.store.times import from_ms, to_ms


class TokenStore:
    """Reads and writes token records; every write is in the audit log.

    Args:
        redis: The client.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._set = load_script(redis, "write", "set_token")

    async def add(self, record: TokenRecord, origin: AuditOrigin) -> bool:
        """Store a new record; return False if one with the same id exists.

        Args:
            record: The record.
            origin: Who creates the token.
        """
        return await self._write(record.project, record.id, _encoded(record), record, origin)

    async def revoke(self, record: TokenRecord, origin: AuditOrigin) -> bool:
        """Delete a record; return False if it does not exist.

        Args:
            record: The record.
            origin: Who revokes the token.
        """
        return await self._write(record.project, record.id, "", record, origin)

    async def get(self, project: str, token_id: str) -> TokenRecord | None:
        """Return a token's record, or None if it does not exist.

        Raises:
            StoreDamagedError: The stored record cannot be read.
        """
        with store_errors():
            raw = await awaited(self._redis.hget(keys.tokens(project), token_id))
        return None if raw is None else _decoded(project, token_id, raw)

    async def list(self, project: str) -> list[TokenRecord]:
        """Return the records of a project, the oldest first.

        Raises:
            StoreDamagedError: A stored record cannot be read.
        """
        with store_errors():
            stored = await awaited(self._redis.hgetall(keys.tokens(project)))
        found = [_decoded(project, token_id.decode(), raw) for token_id, raw in stored.items()]
        return sorted(found, key=lambda record: (record.create_time, record.id))

    async def _write(
        self, project: str, token_id: str, encoded: str, record: TokenRecord, origin: AuditOrigin
    ) -> bool:
        action = "create token" if encoded else "revoke token"
        with store_errors():
            (outcome,) = await self._set(
                keys=[keys.tokens(project), *write_keys(project, origin)],
                args=[
                    token_id,
                    encoded,
                    f"{record.role.word} {record.name}",
                    *write_arguments(origin, (action, project, token_id, encoded)),
                ],
            )
        return TokenOutcome(outcome) is TokenOutcome.DONE


def _encoded(record: TokenRecord) -> str:
    return json.dumps({
        "name": record.name,
        "role": record.role.word,
        "sha256": record.digest,
        "created": to_ms(record.create_time),
        "expires": None if record.expire_time is None else to_ms(record.expire_time),
    })


def _decoded(project: str, token_id: str, raw: bytes) -> TokenRecord:
    try:
        stored: dict[str, Any] = json.loads(raw)
        return TokenRecord(
            project,
            token_id,
            str(stored["name"]),
            Role[str(stored["role"]).upper()],
            str(stored["sha256"]),
            _time(stored["created"]),
            None if stored["expires"] is None else _time(stored["expires"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, InvalidValueError) as error:
        raise StoreDamagedError(f"the record of token {token_id} cannot be read") from error


def _time(milliseconds: Any) -> datetime:
    return from_ms(int(milliseconds))

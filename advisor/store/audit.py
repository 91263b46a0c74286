"""The audit log of a project's writes: an append-only stream.

The scripts that write append to it atomically (``scripts/write.lua``). This module has the keys and
arguments that they need for it, and the reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from redis.asyncio import Redis

from advisor.registry.audit import AuditEvent, AuditOrigin
from advisor.store import keys
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.times import from_ms, to_ms


def write_keys(project: str, origin: AuditOrigin) -> list[str]:
    """Return the last keys of a script that writes, for ``write.lua``."""
    return [keys.audit(project), keys.request(project, origin.request_id)]


def write_arguments(origin: AuditOrigin, request: Sequence[object]) -> list[str | int]:
    """Return the last arguments of a script that writes, for ``write.lua``.

    Args:
        origin: Where the write comes from.
        request: The request: action, name and all values. Retries must have the same.
    """
    fingerprint = hashlib.sha256(repr([str(part) for part in request]).encode()).hexdigest()
    milliseconds = to_ms(origin.time)
    return [origin.actor, origin.peer, milliseconds, origin.request_id, fingerprint]


class AuditStore:
    """Reads the audit log.

    Args:
        redis: The client.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def page(self, project: str, *, before: str, size: int) -> tuple[list[AuditEvent], str]:
        """Return a page of events, the newest first, and the last id if there are more.

        Args:
            project: The project.
            before: Only events before the one with this id; empty: from the newest.
            size: Maximum number of events, at least 1.
        """
        with store_errors():
            entries = await awaited(
                self._redis.xrevrange(
                    keys.audit(project), max=f"({before}" if before else "+", count=size + 1
                )
            )
        events = [_event(raw.decode(), fields) for raw, fields in entries[:size]]
        return events, events[-1].id if len(entries) > size else ""


def _event(event_id: str, fields: dict[bytes, bytes]) -> AuditEvent:
    text = {key.decode(): value.decode() for key, value in fields.items()}
    origin = AuditOrigin(
        from_ms(int(text["time"])),
        text["actor"],
        text["peer"],
        text["request"],
    )
    return AuditEvent(event_id, origin, text["action"], text["name"], text["detail"])

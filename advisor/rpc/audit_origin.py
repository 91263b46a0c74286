"""Where a write comes from, read off a call."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import grpc

from advisor.registry.audit import AuditOrigin
from advisor.rpc.authorization import CALLER

ACTOR_KEY = "fslr-actor"


def audit_origin_of(
    context: grpc.aio.ServicerContext[Any, Any], now: datetime, request_id: str
) -> AuditOrigin:
    """Return the origin of a write.

    The actor is the token or certificate that proved it, with what the caller says behind it; where
    callers are not authenticated, only what it says.

    Args:
        context: The call.
        now: The time.
        request_id: The request's identifier.

    Raises:
        InvalidValueError: The actor or the identifier is too long.
    """
    said = dict(context.invocation_metadata() or ()).get(ACTOR_KEY, "")
    actor = unquote(said.decode("utf-8", "replace") if isinstance(said, bytes) else said)
    proved = CALLER.get()
    if proved is not None:
        actor = f"{proved} says {actor}" if actor else str(proved)
    # Without an identifier of the caller's, one of ours: our own retries towards the store need it.
    return AuditOrigin(now, actor, unquote(context.peer()), request_id or uuid.uuid4().hex)

"""The audit origin of a write: its actor, peer and request identifier, taken from the call."""

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
    """Return the audit origin of a write.

    For an authenticated caller the actor is its token or certificate, followed by the name in its
    metadata; otherwise it is only the name in the metadata.

    Args:
        context: The call.
        now: The time.
        request_id: The request's identifier; empty generates one.

    Raises:
        InvalidValueError: The actor or the identifier is too long.
    """
    value = dict(context.invocation_metadata() or ()).get(ACTOR_KEY, "")
    actor = unquote(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    caller = CALLER.get()
    if caller is not None:
        actor = f"{caller} says {actor}" if actor else str(caller)
    # The service's own retries against the store need an identifier even if the caller sent none.
    return AuditOrigin(now, actor, unquote(context.peer()), request_id or uuid.uuid4().hex)

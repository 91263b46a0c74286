"""The audit log: who changed what."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from advisor.policy.counts import count_of
from advisor.recipes import recipe_from_fields
from advisor.report.words import format_rules
from advisor.store.codec import decode_policy
from advisor.wire import policy_to_proto
from fslr.advisor.v1 import audit_service_pb2

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHORT_DIGEST_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One write.

    Attributes:
        time: When it was made, UTC.
        actor: Who made it.
        peer: The network address that it came from.
        action: What was done, such as ``set alias``.
        name: What it was done to, such as ``profiles/gpt@prod``.
        detail: A short digest, a policy's rules in words, or the versions that an alias named.
    """

    time: datetime
    actor: str
    peer: str
    action: str
    name: str
    detail: str

    @classmethod
    def of(cls, event: audit_service_pb2.AuditEvent) -> AuditRow:
        """Return the row of an event."""
        return cls(
            event.time.ToDatetime(UTC),
            event.actor,
            event.peer,
            event.action,
            event.name,
            audit_detail(event.action, event.detail),
        )


def audit_detail(action: str, text: str) -> str:
    """Return an event's detail in words: a shortened digest, a policy's rules, a recipe's size.

    Args:
        action: What was done.
        text: The stored detail; rules that only a newer version knows are returned unchanged.
    """
    try:
        if action == "set policy":
            return format_rules(policy_to_proto(decode_policy(text.encode())))
        if action == "set recipe":
            recipe = recipe_from_fields(json.loads(text))
            families = ", ".join(recipe.optimizers) or "all optimizers"
            return f"{count_of(len(recipe.rows), 'row')}, for {families}"
    except (ValueError, TypeError, KeyError):
        return text
    return text[:_SHORT_DIGEST_CHARACTERS] if _DIGEST.fullmatch(text) else text

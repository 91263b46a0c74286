"""Audit records: who changed the registry, recorded with every write."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from advisor.policy import InvalidValueError
from advisor.policy.control_characters import check_text

_MAX_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class AuditOrigin:
    """Where a write comes from.

    Attributes:
        time: When it arrived, UTC.
        actor: The writer, as the caller states it; empty: not stated.
        peer: The caller's network address.
        request_id: Identifies retries of the request; empty: none.
    """

    time: datetime
    actor: str = ""
    peer: str = ""
    request_id: str = ""

    def __post_init__(self) -> None:
        """Check the lengths."""
        for field in ("actor", "request_id"):
            if len(getattr(self, field)) > _MAX_CHARACTERS:
                raise InvalidValueError(
                    field,
                    f"{len(getattr(self, field))} characters, but at most {_MAX_CHARACTERS} are "
                    "allowed",
                )
            check_text(field, getattr(self, field))


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One write.

    Attributes:
        id: Its position in the project's audit stream; ids increase.
        origin: Where it came from.
        action: What was done, such as ``set alias``.
        name: What it was done to, within the project, such as ``profiles/gpt@prod``.
        detail: The digest, or the old and the new version.
    """

    id: str
    origin: AuditOrigin
    action: str
    name: str
    detail: str

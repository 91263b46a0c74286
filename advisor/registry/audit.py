"""Who changes the registry: what is written down beside every write."""

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
        actor: Who makes it, in the caller's own words; empty: unsaid.
        peer: The caller's network address.
        request_id: Names the request for its retries; empty: it has none.
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
        id: Its position in the project's record; ids rise.
        origin: Where it came from.
        action: What was done, such as ``set alias``.
        name: To what, below the project, such as ``profiles/gpt@prod``.
        detail: The digest, or what moved from where to where.
    """

    id: str
    origin: AuditOrigin
    action: str
    name: str
    detail: str

"""A stored version of a policy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from advisor.policy import Policy
from advisor.registry.resource_names import PolicyReference


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """One version of a policy.

    Attributes:
        reference: Its name, version included.
        policy: The rules; None, only in lists: they cannot be read.
        create_time: When it was stored, UTC.
    """

    reference: PolicyReference
    policy: Policy | None
    create_time: datetime

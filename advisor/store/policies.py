"""Policies in Redis: immutable versions; the latest one applies unless a version is named."""

from __future__ import annotations

import structlog
from redis.asyncio import Redis

from advisor.errors import PolicyMovedError, PolicyNotFoundError, StoreDamagedError
from advisor.policy import Policy
from advisor.registry.audit import AuditOrigin
from advisor.registry.policies import StoredPolicy
from advisor.registry.resource_names import PolicyReference
from advisor.store.codec import decode_policy, encode_policy
from advisor.store.numbered_versions import (
    POLICIES,
    MissingVersionError,
    MovedVersionError,
    NumberedVersions,
)

_log = structlog.get_logger()


class PolicyStore:
    """Reads and writes policies.

    Args:
        redis: The client. It may retry writes, because each has a request id.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._versions = NumberedVersions(redis, POLICIES)

    async def set(
        self,
        reference: PolicyReference,
        policy: Policy,
        origin: AuditOrigin,
        *,
        expected_version: int | None = None,
    ) -> tuple[StoredPolicy, bool]:
        """Store a new version, unless the latest version has the same rules.

        Args:
            reference: The policy, without a version.
            policy: The rules.
            origin: Where the write comes from.
            expected_version: The latest version must be this one; 0: none exists; None: any.

        Returns:
            The latest version, and whether this request created it.

        Raises:
            PolicyMovedError: The latest version is not the expected one.
        """
        try:
            stored, created = await self._versions.set(
                reference.project,
                reference.policy,
                encode_policy(policy),
                origin,
                expected_version=expected_version,
            )
        except MovedVersionError as error:
            raise PolicyMovedError(str(reference), expected_version or 0, error.latest) from None
        named = PolicyReference(reference.project, reference.policy, stored.version)
        return StoredPolicy(named, policy, stored.create_time), created

    async def get(self, reference: PolicyReference) -> StoredPolicy:
        """Read one version.

        Raises:
            PolicyNotFoundError: The policy or this version of it does not exist.
            StoreDamagedError: The stored rules cannot be read.
        """
        project = reference.project
        try:
            stored = await self._versions.get(project, reference.policy, reference.version)
        except MissingVersionError as error:
            near = [str(PolicyReference(project, name)) for name in error.nearest]
            raise PolicyNotFoundError(str(reference), near, error.latest) from None
        named = PolicyReference(project, reference.policy, stored.version)
        policy = _decoded(named, stored.content)
        if policy is None:
            raise StoreDamagedError(f"the rules of {named} cannot be read")
        return StoredPolicy(named, policy, stored.create_time)

    async def page(self, project: str, *, after: str, size: int) -> tuple[list[StoredPolicy], str]:
        """Return a page of latest versions by name, and the last name if there are more."""
        listed, last = await self._versions.page(project, after=after, size=size)
        found = []
        for stored in listed:
            named = PolicyReference(project, stored.id, stored.version)
            found.append(StoredPolicy(named, _decoded(named, stored.content), stored.create_time))
        return found, last


def _decoded(reference: PolicyReference, rules: bytes) -> Policy | None:
    """Return the policy with stored rules; log the error and return None if they are damaged."""
    try:
        return decode_policy(rules)
    except (ValueError, TypeError, KeyError):
        _log.exception("a stored policy cannot be read", policy=str(reference))
        return None

"""Policies in Redis: immutable versions; the latest one applies unless a version is named."""

from __future__ import annotations

import difflib

import structlog
from redis.asyncio import Redis

from advisor.errors import PolicyMovedError, PolicyNotFoundError, StoreDamagedError
from advisor.policy import Policy
from advisor.registry.audit import AuditOrigin
from advisor.registry.policies import StoredPolicy
from advisor.registry.resource_names import PolicyReference
from advisor.store import keys
from advisor.store.audit import write_arguments, write_keys
from advisor.store.codec import decode_policy, encode_policy
from advisor.store.lua import load_script
from advisor.store.redis.commands import batch, command
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.replies import PolicyOutcome, SetPolicyReply
from advisor.store.times import from_ms, to_ms

_log = structlog.get_logger()
_MAX_COMPARED_NAMES = 1_000  # names that an unknown one is compared with; projects have few


class PolicyStore:
    """Reads and writes policies.

    Args:
        redis: The client. It may retry writes, because each has a request id.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._set = load_script(redis, "write", "set_policy")

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
        rules = encode_policy(policy)
        expected = "" if expected_version is None else expected_version
        request = ("policy", reference, rules, expected)
        with store_errors():
            reply = SetPolicyReply.parse(
                await self._set(
                    keys=[
                        keys.policies(reference.project),
                        keys.policy(reference.project, reference.policy),
                        *write_keys(reference.project, origin),
                    ],
                    args=[
                        reference.policy,
                        rules,
                        expected,
                        to_ms(origin.time),
                        *write_arguments(origin, request),
                    ],
                )
            )
        if reply.outcome is PolicyOutcome.CONFLICT:
            raise PolicyMovedError(str(reference), expected_version or 0, reply.version)
        stored = StoredPolicy(
            PolicyReference(reference.project, reference.policy, reply.version),
            policy,
            from_ms(reply.created_ms),
        )
        return stored, reply.outcome is PolicyOutcome.CREATED

    async def get(self, reference: PolicyReference) -> StoredPolicy:
        """Read one version.

        Raises:
            PolicyNotFoundError: The policy or this version of it does not exist.
            StoreDamagedError: The stored rules cannot be read.
        """
        key = keys.policy(reference.project, reference.policy)
        with store_errors():
            version = reference.version or _number(await awaited(self._redis.hget(key, "latest")))
            rules, created_ms = await awaited(
                self._redis.hmget(key, [f"v:{version}", f"t:{version}"])
            )
            if rules is None:
                latest = _number(await awaited(self._redis.hget(key, "latest")))
                near = [] if latest else await self._nearest(reference)
                raise PolicyNotFoundError(str(reference), near, latest)
        stored = PolicyReference(reference.project, reference.policy, version)
        policy = _decoded(stored, rules)
        if policy is None:
            raise StoreDamagedError(f"the rules of {stored} cannot be read")
        return StoredPolicy(stored, policy, from_ms(_number(created_ms)))

    async def _nearest(self, reference: PolicyReference) -> list[str]:
        key = keys.policies(reference.project)
        existing = await awaited(self._redis.zrangebylex(key, "-", "+", 0, _MAX_COMPARED_NAMES))
        names = [raw.decode() for raw in existing]
        near = difflib.get_close_matches(reference.policy, names, n=3)
        return [str(PolicyReference(reference.project, name)) for name in near]

    async def page(self, project: str, *, after: str, size: int) -> tuple[list[StoredPolicy], str]:
        """Return a page of latest versions by name, and the last name if there are more."""
        with store_errors():
            listed = await awaited(
                self._redis.zrangebylex(
                    keys.policies(project), f"({after}" if after else "-", "+", 0, size + 1
                )
            )
            names = [raw.decode() for raw in listed[:size]]
            own_keys = [keys.policy(project, name) for name in names]
            versions = await batch(
                self._redis, [command("HGET", key, "latest") for key in own_keys]
            )
            latest = [_number(version) for version in versions]
            stored = await batch(  # errors stay with their entry, so the other entries are listed
                self._redis,
                [
                    command("HMGET", key, f"v:{version}", f"t:{version}")
                    for key, version in zip(own_keys, latest, strict=True)
                ],
            )
        found = []
        for name, version, entry in zip(names, latest, stored, strict=True):
            rules, created_ms = (b"", 0) if isinstance(entry, Exception) else entry
            reference = PolicyReference(project, name, version)
            policy = _decoded(reference, rules or b"")
            found.append(StoredPolicy(reference, policy, from_ms(_number(created_ms))))
        return found, names[-1] if len(listed) > size else ""


def _decoded(reference: PolicyReference, rules: bytes) -> Policy | None:
    """Return the policy with stored rules; log the error and return None if they are damaged."""
    try:
        return decode_policy(rules)
    except (ValueError, TypeError, KeyError):
        _log.exception("a stored policy cannot be read", policy=str(reference))
        return None


def _number(stored: object) -> int:
    """Return a stored number, or 0 if it is missing or not a number."""
    try:
        return int(stored)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        return 0

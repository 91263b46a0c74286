"""Deletes whole profiles, policies and runs; each deletion is one atomic script."""

from __future__ import annotations

from redis.asyncio import Redis

from advisor.errors import (
    PolicyInUseError,
    PolicyMovedError,
    PolicyNotFoundError,
    ProfileNotFoundError,
    RunNotFoundError,
    StoreUnavailableError,
    VersionInUseError,
)
from advisor.policy import InvalidValueError
from advisor.registry.audit import AuditOrigin
from advisor.registry.resource_names import PolicyReference, ProfileName, RunName
from advisor.store import keys
from advisor.store.audit import write_arguments, write_keys
from advisor.store.codec import decode_policy_name
from advisor.store.lua import load_script
from advisor.store.redis.commands import batch, command
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.replies import DeleteAllOutcome, DeletePolicyOutcome, DeleteRunOutcome

_MAX_ATTEMPTS = 5  # an attempt fails if a version is registered or deleted during it


class Deletions:
    """Deletes profiles, policies and runs.

    Args:
        redis: The client. It may retry writes, because each has a request id.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._all_versions = load_script(redis, "write", "labels", "delete_all_versions")
        self._policy = load_script(redis, "write", "delete_policy")
        self._run = load_script(redis, "write", "delete_run")

    async def delete_profile(self, name: ProfileName, origin: AuditOrigin) -> None:
        """Delete a profile with all its versions.

        Raises:
            ProfileNotFoundError: The profile does not exist.
            VersionInUseError: The profile has aliases.
            StoreUnavailableError: Versions are registered or deleted all the time.
        """
        own = keys.ProfileKeys(name)
        for _ in range(_MAX_ATTEMPTS):
            versions = await self._versions(name)
            with store_errors():
                outcome, *aliases = await self._all_versions(
                    keys=[
                        keys.profiles(name.project),
                        keys.labels(name.project),
                        own.index,
                        own.aliases,
                        *(own.content(digest) for digest in versions.values()),
                        *write_keys(name.project, origin),
                    ],
                    args=[
                        name.profile,
                        len(versions),
                        *(part for version in versions.items() for part in version),
                        *write_arguments(origin, ("delete all versions", name)),
                    ],
                )
            match outcome:
                case DeleteAllOutcome.DELETED:
                    return
                case DeleteAllOutcome.IN_USE:
                    raise VersionInUseError(str(name), [alias.decode() for alias in aliases])
                case DeleteAllOutcome.NOT_FOUND:
                    raise ProfileNotFoundError(str(name), [])
        raise StoreUnavailableError(f"the versions of {name} keep changing")

    async def _versions(self, name: ProfileName) -> dict[int, str]:
        """Return the digest of each stored version of a profile."""
        with store_errors():
            stored = await awaited(self._redis.hgetall(keys.ProfileKeys(name).index))
        versions = {
            int(field[2:]): digest.decode()
            for field, digest in stored.items()
            if field.startswith(b"v:")
        }
        return dict(sorted(versions.items()))

    async def delete_policy(
        self,
        reference: PolicyReference,
        origin: AuditOrigin,
        *,
        expected_version: int | None = None,
    ) -> None:
        """Delete a policy with all its versions.

        A profile that is registered during the call may still name the policy.

        Args:
            reference: The policy, without a version.
            origin: Where the write comes from.
            expected_version: The latest version must be this one; None: any.

        Raises:
            InvalidValueError: The reference names a version.
            PolicyNotFoundError: The policy does not exist.
            PolicyInUseError: Stored versions of profiles name it.
            PolicyMovedError: The latest version is not the expected one.
        """
        if reference.version:
            raise InvalidValueError(
                "name", f"{str(reference)!r} names a version; all are deleted, so leave it out"
            )
        users = await self._users(reference)
        if users:
            raise PolicyInUseError(str(reference), users)
        expected = "" if expected_version is None else expected_version
        with store_errors():
            outcome, *latest = await self._policy(
                keys=[
                    keys.policies(reference.project),
                    keys.policy(reference.project, reference.policy),
                    *write_keys(reference.project, origin),
                ],
                args=[
                    reference.policy,
                    expected,
                    *write_arguments(origin, ("delete policy", reference, expected)),
                ],
            )
        if outcome == DeletePolicyOutcome.NOT_FOUND:
            raise PolicyNotFoundError(str(reference))
        if outcome == DeletePolicyOutcome.CONFLICT:
            raise PolicyMovedError(str(reference), expected_version or 0, latest[0])

    async def _users(self, reference: PolicyReference) -> list[str]:
        """Return the stored versions of profiles that name a policy."""
        project = reference.project
        with store_errors():
            listed = await awaited(self._redis.zrangebylex(keys.profiles(project), "-", "+"))
        names = [ProfileName(project, raw.decode()) for raw in listed]
        versions = [
            (name, version, digest)
            for name in names
            for version, digest in (await self._versions(name)).items()
        ]
        with store_errors():
            headers = await batch(
                self._redis,
                [
                    command("HGET", keys.ProfileKeys(name).content(digest), "header")
                    for name, _, digest in versions
                ],
            )
        wanted = str(PolicyReference(project, reference.policy))
        return [
            f"{name}@{version}"
            for (name, version, _), header in zip(versions, headers, strict=True)
            if isinstance(header, bytes) and decode_policy_name(header).split("@")[0] == wanted
        ]

    async def delete_run(self, name: RunName, origin: AuditOrigin) -> None:
        """Delete a run, its history and its metrics.

        Raises:
            RunNotFoundError: The run does not exist.
        """
        own = keys.RunKeys(name)
        with store_errors():
            (outcome,) = await self._run(
                keys=[
                    keys.runs(name.project),
                    *(own.summary, own.events, own.metrics, own.metric_names),
                    *write_keys(name.project, origin),
                ],
                args=[name.run, *write_arguments(origin, ("delete run", name))],
            )
        if outcome == DeleteRunOutcome.NOT_FOUND:
            raise RunNotFoundError(str(name))

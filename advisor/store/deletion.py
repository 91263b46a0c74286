"""Deletes whole profiles, policies, recipes and runs; each deletion is one atomic script."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from redis.asyncio import Redis

from advisor.errors import (
    PolicyInUseError,
    PolicyMovedError,
    PolicyNotFoundError,
    ProfileNotFoundError,
    RecipeInUseError,
    RecipeMovedError,
    RecipeNotFoundError,
    RunNotFoundError,
    StoreUnavailableError,
    VersionInUseError,
)
from advisor.policy import InvalidValueError
from advisor.registry.audit import AuditOrigin
from advisor.registry.resource_names import PolicyReference, ProfileName, RecipeReference, RunName
from advisor.store import keys
from advisor.store.audit import write_arguments, write_keys
from advisor.store.codec import decode_policy_name, decode_recipe_name, recipe_name_in
from advisor.store.lua import load_script
from advisor.store.numbered_versions import (
    POLICIES,
    RECIPES,
    MissingVersionError,
    MovedVersionError,
    NumberedVersions,
)
from advisor.store.profile_index import ProfileIndex
from advisor.store.redis.commands import batch, command
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.replies import DeleteAllOutcome, DeleteRunOutcome

_VERSIONS_AT_ONCE = 200  # read together, which other calls wait for
_MAX_ATTEMPTS = 5  # an attempt fails if a version is registered or deleted during it


class Deletions:
    """Deletes profiles, policies, recipes and runs.

    Args:
        redis: The client. It may retry writes, because each has a request id.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._all_versions = load_script(redis, "write", "labels", "delete_all_versions")
        self._policies = NumberedVersions(redis, POLICIES)
        self._recipes = NumberedVersions(redis, RECIPES)
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
                    raise VersionInUseError(
                        str(name), [alias.decode() for alias in aliases], is_last=True
                    )
                case DeleteAllOutcome.NOT_FOUND:
                    nearest = await ProfileIndex(self._redis).nearest(name)
                    raise ProfileNotFoundError(str(name), nearest)
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
        project = reference.project
        users = await self._profiles_with(project, decode_policy_name, str(reference))
        if users:
            raise PolicyInUseError(str(reference), users)
        try:
            await self._policies.delete(
                project, reference.policy, origin, expected_version=expected_version
            )
        except MissingVersionError as error:
            near = [str(PolicyReference(project, name)) for name in error.nearest]
            raise PolicyNotFoundError(str(reference), near) from None
        except MovedVersionError as error:
            raise PolicyMovedError(str(reference), expected_version or 0, error.latest) from None

    async def delete_recipe(
        self,
        reference: RecipeReference,
        origin: AuditOrigin,
        *,
        expected_version: int | None = None,
    ) -> None:
        """Delete a recipe with all its versions.

        A policy or a profile that is stored during the call may still name the recipe.

        Args:
            reference: The recipe, without a version.
            origin: Where the write comes from.
            expected_version: The latest version must be this one; None: any.

        Raises:
            InvalidValueError: The reference names a version, or a recipe of the service.
            RecipeNotFoundError: The recipe does not exist.
            RecipeInUseError: Stored versions of policies or profiles name it.
            RecipeMovedError: The latest version is not the expected one.
        """
        check_can_change(reference)
        project = reference.project
        users = await self._policies_with_recipe(project, str(reference))
        users += await self._profiles_with(project, decode_recipe_name, str(reference))
        if users:
            raise RecipeInUseError(str(reference), users)
        try:
            await self._recipes.delete(
                project, reference.recipe, origin, expected_version=expected_version
            )
        except MissingVersionError as error:
            near = [str(RecipeReference(project, name)) for name in error.nearest]
            raise RecipeNotFoundError(str(reference), near) from None
        except MovedVersionError as error:
            raise RecipeMovedError(str(reference), expected_version or 0, error.latest) from None

    async def _policies_with_recipe(self, project: str, recipe: str) -> list[str]:
        """Return the stored versions of policies that name a recipe."""
        with store_errors():
            listed = await awaited(self._redis.zrangebylex(keys.policies(project), "-", "+"))
            names = [raw.decode() for raw in listed]
            stored = await batch(
                self._redis, [command("HGETALL", keys.policy(project, name)) for name in names]
            )
        return [
            str(PolicyReference(project, name, version))
            for name, fields in zip(names, stored, strict=True)
            if isinstance(fields, dict)
            for version, rules in _versions_in(fields)
            if recipe_name_in(rules).split("@")[0] == recipe
        ]

    async def _profiles_with(
        self, project: str, name_in: Callable[[bytes], str], wanted: str
    ) -> list[str]:
        """Return the stored versions of profiles that name a policy or a recipe.

        Args:
            project: The project.
            name_in: Returns the name in a header.
            wanted: The name, without a version.
        """
        with store_errors():
            listed = await awaited(self._redis.zrangebylex(keys.profiles(project), "-", "+"))
        names = [ProfileName(project, raw.decode()) for raw in listed]
        versions = [
            (name, version, digest)
            for name in names
            for version, digest in (await self._versions(name)).items()
        ]
        found = []
        for start in range(0, len(versions), _VERSIONS_AT_ONCE):
            chunk = versions[start : start + _VERSIONS_AT_ONCE]
            # A summary is a header without the layout.
            with store_errors():
                summaries = await batch(
                    self._redis,
                    [
                        command("HGET", keys.ProfileKeys(name).content(digest), "summary")
                        for name, _, digest in chunk
                    ],
                )
            found += [
                f"{name}@{version}"
                for (name, version, _), summary in zip(chunk, summaries, strict=True)
                if isinstance(summary, bytes) and name_in(summary).split("@")[0] == wanted
            ]
        return found

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


def check_can_change(reference: RecipeReference) -> None:
    """Refuse to store or delete a recipe that comes with the service, or a single version.

    Raises:
        InvalidValueError: The reference names one of these.
    """
    if not reference.project:
        raise InvalidValueError(
            "name",
            f"{str(reference)!r} is the name of a recipe that comes with the service, and these "
            f"never change; name a stored one: projects/{{project}}/recipes/{reference}",
        )
    if reference.version:
        raise InvalidValueError("name", f"{str(reference)!r} names a version; leave it out")


def _versions_in(fields: Mapping[bytes, bytes]) -> list[tuple[int, bytes]]:
    """Return the versions and contents in the hash of a policy, in ascending order."""
    return sorted(
        (int(field[2:]), content) for field, content in fields.items() if field.startswith(b"v:")
    )

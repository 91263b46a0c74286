"""Profiles in Redis: immutable, content-addressed versions, and aliases that move."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from redis.asyncio import Redis

from advisor.errors import (
    AliasMovedError,
    NotFoundError,
    ProfileDamagedError,
    ProfileNotFoundError,
    VersionInUseError,
    VersionNotFoundError,
)
from advisor.policy import InvalidValueError
from advisor.registry.audit import AuditOrigin
from advisor.registry.profiles import Alias, ProfileContent, ProfileVersion, VersionInfo
from advisor.registry.resolution import resolve_and_read
from advisor.registry.resource_names import ProfileName, ProfileReference
from advisor.store import keys
from advisor.store.audit import write_arguments, write_keys
from advisor.store.codec import EncodedProfile, decode, encode
from advisor.store.profile_index import ProfileIndex, label_pair
from advisor.store.profile_replies import aliases_of, info_of, resolved
from advisor.store.redis.commands import load_script
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.times import to_ms


class ProfileStore:
    """Reads and writes profiles; every write is one atomic script.

    Args:
        redis: The client. It may repeat writes: each has an identifier.

    Attributes:
        index: Finds profiles by name and label.

    Raises:
        StoreUnavailableError: By every method, when Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.index = ProfileIndex(redis)
        self._register = load_script(redis, "write", "labels", "register_profile")
        self._resolve = load_script(redis, "resolve_profile")
        self._set_alias = load_script(redis, "write", "set_alias")
        self._delete = load_script(redis, "write", "labels", "delete_profile")

    async def register(
        self, name: ProfileName, content: ProfileContent, origin: AuditOrigin
    ) -> tuple[VersionInfo, bool]:
        """Store a version, or find the one with the same content.

        Returns:
            The version, and whether this request made it.

        Raises:
            InvalidValueError: The provenance is not complete, or a value is out of its range.
            RequestReusedError: The request's identifier was another request's.
            AuditUnavailableError: It cannot be written down who writes.
        """
        content.header.provenance.check_complete()
        content.profile()  # refuse what recommendations could not use
        encoded = await asyncio.to_thread(encode, content)
        own = keys.ProfileKeys(name)
        labels = [label_pair(*label) for label in sorted(content.header.labels.items())]
        with store_errors():
            version, created_ms, created, *naming = await self._register(
                keys=[
                    keys.profiles(name.project),
                    keys.labels(name.project),
                    own.index,
                    own.aliases,
                    own.content(encoded.digest),
                    *write_keys(name.project, origin),
                ],
                args=[
                    encoded.digest,
                    encoded.header,
                    encoded.arrays,
                    encoded.summary,
                    to_ms(origin.time),
                    name.profile,
                    json.dumps(labels),
                    *write_arguments(origin, ("register", name, encoded.digest)),
                ],
            )
        return info_of(name, [version, encoded.digest, created_ms], naming), bool(created)

    async def resolve(self, reference: ProfileReference) -> VersionInfo:
        """Find the version that a reference names.

        Raises:
            ProfileNotFoundError: There is no such profile.
            VersionNotFoundError: It has no such version or alias.
        """
        return (await self._look(reference, all_versions=False))[0]

    async def _look(
        self, reference: ProfileReference, *, all_versions: bool
    ) -> tuple[VersionInfo, list[Alias], list[int]]:
        """Return a version, all aliases of its profile and, if wanted, all its versions."""
        own = keys.ProfileKeys(reference.name)
        with store_errors():
            found = await self._resolve(
                keys=[own.index, own.aliases], args=[reference.suffix, int(all_versions)]
            )
        if not found:
            raise ProfileNotFoundError(
                str(reference.name), await self.index.nearest(reference.name)
            )
        if len(found) == 1:
            raise VersionNotFoundError(
                str(reference.name), reference.suffix, await self._known(reference.name)
            )
        aliases = aliases_of(found[3])
        return resolved(reference.name, found), aliases, sorted(found[4])

    async def content(self, info: VersionInfo) -> ProfileContent:
        """Read the content of a version, checked against its digest.

        Raises:
            VersionNotFoundError: The version was deleted meanwhile.
            ProfileDamagedError: The stored bytes are missing or not those of the digest.
        """
        with store_errors():
            header, arrays = await awaited(
                self._redis.hmget(
                    keys.ProfileKeys(info.name).content(info.digest), ["header", "arrays"]
                )
            )
        if header is None or arrays is None:
            await self.resolve(info.reference)
            raise ProfileDamagedError(info.digest)
        return await asyncio.to_thread(decode, EncodedProfile(info.digest, header, arrays))

    async def get(self, reference: ProfileReference) -> ProfileVersion:
        """Read one version with its content, and the aliases and versions beside it.

        Raises:
            ProfileNotFoundError: There is no such profile.
            VersionNotFoundError: It has no such version or alias.
            ProfileDamagedError: The stored bytes are missing or not those of the digest.
        """
        (info, aliases, versions), content = await resolve_and_read(
            reference,
            lambda: self._look(reference, all_versions=True),
            lambda found: self.content(found[0]),
        )
        return ProfileVersion(info, content, tuple(aliases), tuple(versions))

    async def set_alias(
        self,
        reference: ProfileReference,
        alias: str,
        origin: AuditOrigin,
        *,
        expected_version: int | None = None,
        expected_moves: int | None = None,
    ) -> tuple[VersionInfo, int, Alias]:
        """Point an alias at a version.

        Args:
            reference: The version.
            alias: The alias.
            origin: Where the write comes from.
            expected_version: What the alias must name now; 0: nothing; None: anything.
            expected_moves: How often it must have moved; None: any number of times.

        Returns:
            The version, what the alias named before (0: nothing), and the alias.

        Raises:
            AliasMovedError: The alias names another version than expected.
            VersionNotFoundError: The profile has no such version.
        """
        expected = ["" if v is None else v for v in (expected_version, expected_moves)]
        own = keys.ProfileKeys(reference.name)
        request = ("alias", reference, alias, *expected)
        with store_errors():
            outcome, *rest = await self._set_alias(
                keys=[own.index, own.aliases, *write_keys(reference.name.project, origin)],
                args=[
                    alias,
                    0,
                    reference.suffix,
                    *expected,
                    reference.name.profile,
                    *write_arguments(origin, request),
                ],
            )
        await self._check_moved(reference, alias, outcome, rest, expected_version)
        before, moves, version, digest, created_ms, *naming = rest
        info = info_of(reference.name, [version, digest.decode(), created_ms], naming)
        return info, before, Alias(alias, version, moves)

    async def delete_alias(
        self,
        name: ProfileName,
        alias: str,
        origin: AuditOrigin,
        *,
        expected_moves: int | None = None,
    ) -> None:
        """Take an alias away.

        Raises:
            ProfileNotFoundError: There is no such profile.
            VersionNotFoundError: It has no such alias.
            AliasMovedError: It moved another number of times.
        """
        own = keys.ProfileKeys(name)
        expected = ["", "" if expected_moves is None else expected_moves]
        request = ("delete alias", name, alias, *expected)
        with store_errors():
            outcome, *rest = await self._set_alias(
                keys=[own.index, own.aliases, *write_keys(name.project, origin)],
                args=[alias, 1, "", *expected, name.profile, *write_arguments(origin, request)],
            )
        await self._check_moved(ProfileReference(name, alias), alias, outcome, rest, None)

    async def _check_moved(
        self,
        reference: ProfileReference,
        alias: str,
        outcome: int,
        rest: Sequence[int],
        expected_version: int | None,
    ) -> None:
        """Raise what ``set_alias.lua`` refused."""
        name = reference.name
        match outcome:
            case 0:
                raise AliasMovedError(alias, expected_version, rest[0])
            case -1:
                raise VersionNotFoundError(str(name), reference.suffix, await self._known(name))
            case -2:
                raise ProfileNotFoundError(str(name), await self.index.nearest(name))
            case -3:
                raise VersionNotFoundError(str(name), alias, await self._known(name))

    async def delete(self, reference: ProfileReference, origin: AuditOrigin) -> None:
        """Remove one version.

        Raises:
            InvalidValueError: The reference does not give a version number.
            ProfileNotFoundError: There is no such profile.
            VersionNotFoundError: It has no such version.
            VersionInUseError: An alias names the version.
        """
        if reference.version is None:
            raise InvalidValueError(
                "name", f"{str(reference)!r} gives no version number; add @{{version}}"
            )
        missing: NotFoundError | None = None
        digest = ""
        try:
            digest = (await self.resolve(reference)).digest
        except NotFoundError as error:
            missing = error  # unless the same request removed it before: the script knows
        own = keys.ProfileKeys(reference.name)
        with store_errors():
            outcome, *naming = await self._delete(
                keys=[
                    keys.profiles(reference.name.project),
                    keys.labels(reference.name.project),
                    own.index,
                    own.aliases,
                    own.content(digest),
                    *write_keys(reference.name.project, origin),
                ],
                args=[
                    reference.version,
                    digest,
                    reference.name.profile,
                    *write_arguments(origin, ("delete", reference)),
                ],
            )
        if outcome < 0:
            raise VersionInUseError(str(reference), [alias.decode() for alias in naming])
        if outcome == 0:
            raise missing or VersionNotFoundError(
                str(reference.name), reference.suffix, await self._known(reference.name)
            )

    async def _known(self, name: ProfileName) -> list[str]:
        own = keys.ProfileKeys(name)
        with store_errors():
            fields = await awaited(self._redis.hkeys(own.index))
            aliases = await awaited(self._redis.hkeys(own.aliases))
        versions = sorted(int(field[2:]) for field in fields if field.startswith(b"v:"))
        return [str(v) for v in versions[-10:]] + sorted(alias.decode() for alias in aliases)

"""Profiles in Redis: immutable, content-addressed versions, and aliases that move."""

from __future__ import annotations

import asyncio
import json

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
from advisor.store.lua import load_script
from advisor.store.profile_index import ProfileIndex, label_pair
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.replies import (
    AliasOutcome,
    DeleteOutcome,
    DeleteReply,
    RegisterOutcome,
    RegisterReply,
    ResolveOutcome,
    ResolveReply,
    SetAliasReply,
)
from advisor.store.times import from_ms, to_ms

_MAX_LISTED_VERSIONS = 10  # in an error message


class ProfileStore:
    """Reads and writes profiles; every write is one atomic script.

    Args:
        redis: The client. It may retry writes, because each has a request id.

    Attributes:
        index: Finds profiles by name and label.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.index = ProfileIndex(redis)
        self._register = load_script(redis, "write", "labels", "register_profile")
        self._resolve = load_script(redis, "versions", "resolve_profile")
        self._set_alias = load_script(redis, "write", "versions", "set_alias")
        self._delete = load_script(redis, "write", "labels", "delete_profile")

    async def register(
        self, name: ProfileName, content: ProfileContent, origin: AuditOrigin
    ) -> tuple[VersionInfo, bool]:
        """Store a new version, unless a version with the same content exists.

        Returns:
            The version with the content, and whether this request created it.

        Raises:
            InvalidValueError: The provenance is incomplete, or a value is out of its range.
            RequestReusedError: The request id belongs to a different request.
            AuditUnavailableError: The audit record cannot be written.
        """
        content.header.provenance.check_complete()
        content.profile()  # rejects content that recommendations could not use
        encoded = await asyncio.to_thread(encode, content)
        labels = [label_pair(*label) for label in sorted(content.header.labels.items())]
        with store_errors():
            reply = RegisterReply.parse(
                await self._register(
                    keys=_version_keys(name, encoded.digest, origin),
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
            )
        info = VersionInfo(
            name, reply.version, encoded.digest, from_ms(reply.created_ms), reply.aliases
        )
        return info, reply.outcome is RegisterOutcome.CREATED

    async def resolve(self, reference: ProfileReference) -> VersionInfo:
        """Find the version that a reference names.

        Raises:
            ProfileNotFoundError: The profile does not exist.
            VersionNotFoundError: The profile has no such version or alias.
        """
        return (await self._look_up(reference, all_versions=False)).version_info(reference.name)

    async def _look_up(self, reference: ProfileReference, *, all_versions: bool) -> ResolveReply:
        """Find a version, all aliases of its profile and, if wanted, all its versions."""
        name = reference.name
        profile_keys = keys.ProfileKeys(name)
        with store_errors():
            reply = ResolveReply.parse(
                await self._resolve(
                    keys=[profile_keys.index, profile_keys.aliases],
                    args=[reference.suffix, int(all_versions)],
                )
            )
        if reply.outcome is ResolveOutcome.NO_PROFILE:
            raise ProfileNotFoundError(str(name), await self.index.nearest(name))
        if reply.outcome is ResolveOutcome.NO_VERSION:
            raise VersionNotFoundError(str(name), reference.suffix, await self._known(name))
        return reply

    async def content(self, info: VersionInfo) -> ProfileContent:
        """Read the content of a version and check it against its digest.

        Raises:
            VersionNotFoundError: The version was deleted in the meantime.
            ProfileDamagedError: The stored bytes are missing or do not match the digest.
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
        """Read one version with its content, and the profile's aliases and versions.

        Raises:
            ProfileNotFoundError: The profile does not exist.
            VersionNotFoundError: The profile has no such version or alias.
            ProfileDamagedError: The stored bytes are missing or do not match the digest.
        """
        found, content = await resolve_and_read(
            reference,
            lambda: self._look_up(reference, all_versions=True),
            lambda reply: self.content(reply.version_info(reference.name)),
        )
        info = found.version_info(reference.name)
        return ProfileVersion(info, content, found.aliases, found.versions)

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
            expected_version: The version that the alias must name now; 0: none; None: any.
            expected_moves: How often the alias must have moved; None: any number of times.

        Returns:
            The version, the version that the alias named before (0: none), and the alias.

        Raises:
            AliasMovedError: The alias is not in the expected state.
            ProfileNotFoundError: The profile does not exist.
            VersionNotFoundError: The profile has no such version.
        """
        name = reference.name
        expected = ["" if v is None else v for v in (expected_version, expected_moves)]
        request = ("alias", reference, alias, *expected)
        reply = await self._change_alias(
            name, origin, request, [alias, 0, reference.suffix, *expected]
        )
        await self._raise_refusal(reference, alias, reply, expected_version)
        info = VersionInfo(
            name, reply.version, reply.digest, from_ms(reply.created_ms), reply.aliases
        )
        return info, reply.previous_version, Alias(alias, reply.version, reply.moves)

    async def delete_alias(
        self,
        name: ProfileName,
        alias: str,
        origin: AuditOrigin,
        *,
        expected_moves: int | None = None,
    ) -> None:
        """Delete an alias.

        Raises:
            ProfileNotFoundError: The profile does not exist.
            VersionNotFoundError: The profile has no such alias.
            AliasMovedError: The alias has not moved the expected number of times.
        """
        expected = ["", "" if expected_moves is None else expected_moves]
        request = ("delete alias", name, alias, *expected)
        reply = await self._change_alias(name, origin, request, [alias, 1, "", *expected])
        await self._raise_refusal(ProfileReference(name, alias), alias, reply, None)

    async def _change_alias(
        self,
        name: ProfileName,
        origin: AuditOrigin,
        request: tuple[object, ...],
        arguments: list[str | int],
    ) -> SetAliasReply:
        """Run ``set_alias.lua``, which also deletes aliases.

        Args:
            name: The profile.
            origin: Where the write comes from.
            request: What a request id stands for.
            arguments: The script's own arguments: alias, whether to delete it, version, and what
                is expected of the alias.
        """
        profile_keys = keys.ProfileKeys(name)
        with store_errors():
            return SetAliasReply.parse(
                await self._set_alias(
                    keys=[
                        *(profile_keys.index, profile_keys.aliases),
                        *write_keys(name.project, origin),
                    ],
                    args=[*arguments, name.profile, *write_arguments(origin, request)],
                )
            )

    async def _raise_refusal(
        self,
        reference: ProfileReference,
        alias: str,
        reply: SetAliasReply,
        expected_version: int | None,
    ) -> None:
        """Raise the error for a reply of ``set_alias.lua`` that refuses the change."""
        name = reference.name
        match reply.outcome:
            case AliasOutcome.CONFLICT:
                raise AliasMovedError(alias, expected_version, reply.previous_version)
            case AliasOutcome.NO_VERSION:
                raise VersionNotFoundError(str(name), reference.suffix, await self._known(name))
            case AliasOutcome.NO_PROFILE:
                raise ProfileNotFoundError(str(name), await self.index.nearest(name))
            case AliasOutcome.NO_ALIAS:
                raise VersionNotFoundError(str(name), alias, await self._known(name))

    async def delete(self, reference: ProfileReference, origin: AuditOrigin) -> None:
        """Delete one version.

        Raises:
            InvalidValueError: The reference has no version number.
            ProfileNotFoundError: The profile does not exist.
            VersionNotFoundError: The profile has no such version.
            VersionInUseError: An alias names the version.
        """
        if reference.version is None:
            raise InvalidValueError(
                "name", f"{str(reference)!r} has no version number; add @{{version}}"
            )
        missing: NotFoundError | None = None
        digest = ""
        try:
            digest = (await self.resolve(reference)).digest
        except NotFoundError as error:
            missing = error  # this may be the retry of a request that succeeded: the script decides
        name = reference.name
        with store_errors():
            reply = DeleteReply.parse(
                await self._delete(
                    keys=_version_keys(name, digest, origin),
                    args=[
                        reference.version,
                        digest,
                        name.profile,
                        *write_arguments(origin, ("delete", reference)),
                    ],
                )
            )
        if reply.outcome is DeleteOutcome.IN_USE:
            raise VersionInUseError(str(reference), list(reply.aliases))
        if reply.outcome is DeleteOutcome.NOT_FOUND:
            raise missing or VersionNotFoundError(
                str(name), reference.suffix, await self._known(name)
            )

    async def _known(self, name: ProfileName) -> list[str]:
        """Return the newest versions and all aliases of a profile, for error messages."""
        profile_keys = keys.ProfileKeys(name)
        with store_errors():
            fields = await awaited(self._redis.hkeys(profile_keys.index))
            aliases = await awaited(self._redis.hkeys(profile_keys.aliases))
        versions = sorted(int(field[2:]) for field in fields if field.startswith(b"v:"))
        newest = [str(version) for version in versions[-_MAX_LISTED_VERSIONS:]]
        return newest + sorted(alias.decode() for alias in aliases)


def _version_keys(name: ProfileName, digest: str, origin: AuditOrigin) -> list[str]:
    """Return the keys of a script that writes or deletes a version.

    Args:
        name: The profile.
        digest: The digest of the version's content.
        origin: Where the write comes from.
    """
    own = keys.ProfileKeys(name)
    return [
        *(keys.profiles(name.project), keys.labels(name.project)),
        *(own.index, own.aliases, own.content(digest)),
        *write_keys(name.project, origin),
    ]

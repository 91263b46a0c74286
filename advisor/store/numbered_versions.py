"""Policies and recipes in Redis: immutable versions, counted from 1."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from redis.asyncio import Redis

from advisor.registry.audit import AuditOrigin
from advisor.store import keys
from advisor.store.audit import write_arguments, write_keys
from advisor.store.lua import load_script
from advisor.store.redis.commands import batch, command
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.replies import DeleteVersionsOutcome, SetVersionReply, VersionOutcome
from advisor.store.times import from_ms, to_ms

_MAX_COMPARED_NAMES = 1_000  # names that an unknown one is compared with; projects have few


@dataclass(frozen=True, slots=True)
class Kind:
    """What the versions are of.

    Attributes:
        word: The word for one, as in the audit log.
        plural: The word for several, as in resource names.
        all_key: Returns the key of a project's ids.
        own_key: Returns the key of one of them.
    """

    word: str
    plural: str
    all_key: Callable[[str], str]
    own_key: Callable[[str, str], str]


POLICIES = Kind("policy", "policies", keys.policies, keys.policy)
RECIPES = Kind("recipe", "recipes", keys.recipes, keys.recipe)


class StoredVersion(NamedTuple):
    """A stored version.

    Attributes:
        id: The identifier.
        version: The version; 0: it is damaged.
        content: What is stored; empty: it is damaged.
        create_time: When it was stored, UTC.
    """

    id: str
    version: int
    content: bytes
    create_time: datetime


class MissingVersionError(Exception):
    """There is no such version.

    Attributes:
        nearest: Similar identifiers, the nearest first.
        latest: The latest version; 0: there is none.
    """

    def __init__(self, nearest: Sequence[str], latest: int) -> None:
        super().__init__(nearest, latest)
        self.nearest = tuple(nearest)
        self.latest = latest


class MovedVersionError(Exception):
    """The latest version is not the expected one.

    Attributes:
        latest: The latest version; 0: there is none.
    """

    def __init__(self, latest: int) -> None:
        super().__init__(latest)
        self.latest = latest


class NumberedVersions:
    """Reads and writes the versions of one kind.

    Args:
        redis: The client. It may retry writes, because each has a request id.
        kind: The kind.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis, kind: Kind) -> None:
        self._redis = redis
        self._kind = kind
        self._set = load_script(redis, "write", "set_version")
        self._delete = load_script(redis, "write", "delete_versions")

    async def set(
        self,
        project: str,
        identifier: str,
        content: bytes,
        origin: AuditOrigin,
        *,
        expected_version: int | None,
    ) -> tuple[StoredVersion, bool]:
        """Store a new version, unless the latest one has the same content.

        Args:
            project: The project.
            identifier: What to store a version of.
            content: Its content.
            origin: Where the write comes from.
            expected_version: The latest version must be this one; 0: none exists; None: any.

        Returns:
            The latest version, and whether this request created it.

        Raises:
            MovedVersionError: The latest version is not the expected one.
        """
        kind = self._kind
        expected = "" if expected_version is None else expected_version
        request = (kind.word, f"projects/{project}/{kind.plural}/{identifier}", content, expected)
        with store_errors():
            reply = SetVersionReply.parse(
                await self._set(
                    keys=self._write_keys(project, identifier, origin),
                    args=[
                        *(identifier, content, expected, to_ms(origin.time)),
                        *(kind.word, kind.plural),
                        *write_arguments(origin, request),
                    ],
                )
            )
        if reply.outcome is VersionOutcome.CONFLICT:
            raise MovedVersionError(reply.version)
        stored = StoredVersion(identifier, reply.version, content, from_ms(reply.created_ms))
        return stored, reply.outcome is VersionOutcome.CREATED

    async def get(self, project: str, identifier: str, version: int) -> StoredVersion:
        """Read one version.

        Args:
            project: The project.
            identifier: What to read a version of.
            version: The version; 0: the latest.

        Raises:
            MissingVersionError: It does not exist.
        """
        key = self._kind.own_key(project, identifier)
        with store_errors():
            version = version or _number(await awaited(self._redis.hget(key, "latest")))
            content, created_ms = await awaited(
                self._redis.hmget(key, [f"v:{version}", f"t:{version}"])
            )
            if content is None:
                latest = _number(await awaited(self._redis.hget(key, "latest")))
                near = () if latest else await self._nearest(project, identifier)
                raise MissingVersionError(near, latest)
        return StoredVersion(identifier, version, content, from_ms(_number(created_ms)))

    async def _nearest(self, project: str, identifier: str) -> tuple[str, ...]:
        key = self._kind.all_key(project)
        existing = await awaited(self._redis.zrangebylex(key, "-", "+", 0, _MAX_COMPARED_NAMES))
        names = [raw.decode() for raw in existing]
        return tuple(difflib.get_close_matches(identifier, names, n=3))

    async def page(self, project: str, *, after: str, size: int) -> tuple[list[StoredVersion], str]:
        """Return a page of latest versions by identifier, and the last one if there are more."""
        with store_errors():
            listed = await awaited(
                self._redis.zrangebylex(
                    self._kind.all_key(project), f"({after}" if after else "-", "+", 0, size + 1
                )
            )
            names = [raw.decode() for raw in listed[:size]]
            own_keys = [self._kind.own_key(project, name) for name in names]
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
            content, created_ms = (b"", 0) if isinstance(entry, Exception) else entry
            time = from_ms(_number(created_ms))
            found.append(StoredVersion(name, version, content or b"", time))
        return found, names[-1] if len(listed) > size else ""

    async def delete(
        self, project: str, identifier: str, origin: AuditOrigin, *, expected_version: int | None
    ) -> None:
        """Delete all versions.

        Args:
            project: The project.
            identifier: What to delete.
            origin: Where the write comes from.
            expected_version: The latest version must be this one; None: any.

        Raises:
            MissingVersionError: There is none.
            MovedVersionError: The latest version is not the expected one.
        """
        kind = self._kind
        expected = "" if expected_version is None else expected_version
        name = f"projects/{project}/{kind.plural}/{identifier}"
        with store_errors():
            outcome, *latest = await self._delete(
                keys=self._write_keys(project, identifier, origin),
                args=[
                    *(identifier, expected, kind.word, kind.plural),
                    *write_arguments(origin, (f"delete {kind.word}", name, expected)),
                ],
            )
        if outcome == DeleteVersionsOutcome.NOT_FOUND:
            with store_errors():
                near = await self._nearest(project, identifier)
            raise MissingVersionError(near, 0)
        if outcome == DeleteVersionsOutcome.CONFLICT:
            raise MovedVersionError(latest[0])

    def _write_keys(self, project: str, identifier: str, origin: AuditOrigin) -> list[str]:
        return [
            self._kind.all_key(project),
            self._kind.own_key(project, identifier),
            *write_keys(project, origin),
        ]


def _number(stored: object) -> int:
    """Return a stored number, or 0 if it is missing or not a number."""
    try:
        return int(stored)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        return 0

"""Finds profiles: pages by name and by label, and names similar to an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import structlog
from redis.asyncio import Redis

from advisor.errors import ProfileDamagedError
from advisor.registry.profiles import ProfileSummary, VersionInfo
from advisor.registry.resource_names import ProfileName
from advisor.store import keys
from advisor.store.codec import decode_summary
from advisor.store.lua import load_script
from advisor.store.redis.commands import batch, command
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.replies import ResolveOutcome, ResolveReply
from advisor.store.times import from_ms

_NEIGHBORS = 500  # names on each side of an unknown name that it is compared with
_FILTER_BATCH = 500  # names read at a time if several labels are required
_LAST = "\x7f"  # sorts after every character of a profile id

_log = structlog.get_logger()


class ProfileIndex:
    """Finds profiles in the indexes that the Lua scripts maintain.

    Args:
        redis: The client.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._resolve = load_script(redis, "versions", "resolve_profile")

    async def page(
        self, project: str, *, after: str, size: int, labels: dict[str, str]
    ) -> tuple[list[tuple[VersionInfo, ProfileSummary | None]], str]:
        """Return a page of latest versions by name, and the last name if there are more.

        The summary of a version that cannot be read is None, so a damaged profile does not hide the
        others.

        Args:
            project: The project.
            after: The profile id after which the page starts; empty: from the first.
            size: Maximum number of entries, at least 1.
            labels: Labels that every listed version has.
        """
        found: list[tuple[VersionInfo, ProfileSummary | None]] = []
        with store_errors():
            prefix = await self._narrowest(project, labels)
        while True:
            wanted = size + 1 - len(found)
            count = wanted if len(labels) < 2 else max(wanted, _FILTER_BATCH)
            with store_errors():
                listed = await self._names(project, prefix, after, count)
                matching = await self._with_labels(project, listed, labels)
                entries = await self._latest([ProfileName(project, name) for name in matching])
            found += [
                (info, summary)
                for info, summary in entries
                if summary is None or labels.items() <= summary.header.labels.items()
            ]
            if len(found) > size:
                return found[:size], found[size - 1][0].name.profile
            if len(listed) < count:
                return found, ""
            after = listed[-1]

    async def _narrowest(self, project: str, labels: Mapping[str, str]) -> str:
        """Return the prefix in the label index of the required label that fewest profiles have.

        Empty if no labels are required.
        """
        prefixes = [f"{label_pair(key, value)}\0" for key, value in sorted(labels.items())]
        if len(prefixes) < 2:
            return "".join(prefixes)
        key = keys.labels(project)
        counts = await batch(
            self._redis,
            [command("ZLEXCOUNT", key, f"[{prefix}", f"({prefix}{_LAST}") for prefix in prefixes],
        )
        for count in counts:
            if isinstance(count, Exception):
                raise count
        return prefixes[counts.index(min(counts))]

    async def _names(self, project: str, prefix: str, after: str, count: int) -> list[str]:
        """Return the next profiles of the project, or of a prefix in the label index."""
        listed = await awaited(
            self._redis.zrangebylex(
                keys.labels(project) if prefix else keys.profiles(project),
                f"({prefix}{after}" if after else f"[{prefix}" if prefix else "-",
                f"({prefix}{_LAST}" if prefix else "+",
                start=0,
                num=count,
            )
        )
        return [raw.decode().removeprefix(prefix) for raw in listed]

    async def _with_labels(
        self, project: str, profiles: Sequence[str], labels: Mapping[str, str]
    ) -> list[str]:
        """Return the profiles that have all labels according to the index."""
        if not (profiles and labels):
            return list(profiles)
        members = [
            f"{label_pair(key, value)}\0{profile}"
            for profile in profiles
            for key, value in labels.items()
        ]
        scores = await awaited(self._redis.zmscore(keys.labels(project), members))
        count = len(labels)
        return [
            profile
            for i, profile in enumerate(profiles)
            if None not in scores[i * count : (i + 1) * count]
        ]

    async def _latest(
        self, names: Sequence[ProfileName]
    ) -> list[tuple[VersionInfo, ProfileSummary | None]]:
        """Return the latest versions of the profiles that have not been deleted meanwhile."""
        found: dict[ProfileName, tuple[VersionInfo, bytes | None]] = {}
        pending: Sequence[ProfileName] = names
        while pending:
            # A version without content was deleted after it was resolved, and a different version
            # is the latest now. If it is still the same version, its content is lost.
            before = {name: found.pop(name)[0] for name in pending if name in found}
            entries = await self._stored_latest(pending)
            found |= {info.name: (info, summary) for info, summary in entries}
            pending = [
                info.name
                for info, summary in entries
                if summary is None and info.version and before.get(info.name) != info
            ]
        return [
            (info, _readable(info, summary))
            for info, summary in (found[name] for name in names if name in found)
        ]

    async def _stored_latest(
        self, names: Sequence[ProfileName]
    ) -> list[tuple[VersionInfo, bytes | None]]:
        """Return the latest version of each profile that exists, with its summary if it has one.

        A profile that cannot be resolved gets version 0.
        """
        profiles = [keys.ProfileKeys(name) for name in names]
        results = await batch(
            self._redis,
            [self._resolve.call([profile.index, profile.aliases], ["", 0]) for profile in profiles],
        )
        infos: list[VersionInfo] = []
        for name, result in zip(names, results, strict=True):
            if isinstance(result, Exception):
                _log.error("a stored profile cannot be read", profile=str(name), error=result)
                infos.append(VersionInfo(name, 0, "", from_ms(0)))
                continue
            reply = ResolveReply.parse(result)
            if reply.outcome is ResolveOutcome.FOUND:
                infos.append(reply.version_info(name))
        contents = [keys.ProfileKeys(info.name).content(info.digest) for info in infos]
        summaries = await batch(
            self._redis, [command("HGET", content, "summary") for content in contents]
        )
        return [
            (info, b"" if isinstance(summary, Exception) else summary)
            for info, summary in zip(infos, summaries, strict=True)
        ]

    async def nearest(self, name: ProfileName) -> list[str]:
        """Return the existing names most similar to an unknown one, the nearest first."""
        key = keys.profiles(name.project)
        with store_errors():
            existing = await awaited(
                self._redis.zrevrangebylex(key, f"({name.profile}", "-", start=0, num=_NEIGHBORS)
            )
            existing += await awaited(
                self._redis.zrangebylex(key, f"({name.profile}", "+", start=0, num=_NEIGHBORS)
            )
        near = difflib.get_close_matches(name.profile, [raw.decode() for raw in existing], n=3)
        return [str(ProfileName(name.project, profile)) for profile in near]


def _readable(info: VersionInfo, summary: bytes | None) -> ProfileSummary | None:
    try:
        return decode_summary(info.digest, summary or b"")
    except ProfileDamagedError:
        _log.exception("a stored profile cannot be read", profile=str(info.reference))
        return None


def label_pair(key: str, value: str) -> str:
    """Return a label in the form of the index, ``key NUL value``."""
    return f"{key}\0{value}"

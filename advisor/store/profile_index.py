"""Finding profiles: pages by name and by label, and names near to one that is not there."""

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
from advisor.store.profile_replies import resolved
from advisor.store.redis.commands import batch, command, load_script
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.times import from_ms

_NEAREST_AMONG = 500  # names before, and after, an unknown one that it is compared with
_SIFTED = 500  # names read at a time where several labels are wanted
_LAST = "\x7f"  # after every character of a profile's identifier

_log = structlog.get_logger()


class ProfileIndex:
    """Finds profiles; the scripts of the store keep what it reads.

    Args:
        redis: The client.

    Raises:
        StoreUnavailableError: By every method, when Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._resolve = load_script(redis, "resolve_profile")

    async def page(
        self, project: str, *, after: str, size: int, labels: dict[str, str]
    ) -> tuple[list[tuple[VersionInfo, ProfileSummary | None]], str]:
        """Return a page of latest versions by name, and the last name if there is more.

        What cannot be read of a version is None, so that one damaged profile hides no other.

        Args:
            project: The project.
            after: The identifier after which the page begins; empty: from the first.
            size: Most entries, at least 1.
            labels: Pairs that every listed version has.
        """
        found: list[tuple[VersionInfo, ProfileSummary | None]] = []
        with store_errors():
            source = await self._narrowest(project, labels)
        while True:
            wanted = size + 1 - len(found)
            count = wanted if len(labels) < 2 else max(wanted, _SIFTED)
            with store_errors():
                listed = await self._names(project, source, after, count)
                fitting = await self._labelled(project, listed, labels)
                entries = await self._latest([ProfileName(project, name) for name in fitting])
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
        """Return the beginning of the label index that has the fewest of the wanted profiles.

        Empty where no labels are wanted.
        """
        prefixes = [f"{label_pair(key, value)}\0" for key, value in sorted(labels.items())]
        if len(prefixes) < 2:
            return "".join(prefixes)
        key = keys.labels(project)
        counts = await batch(
            self._redis,
            [command("ZLEXCOUNT", key, f"[{start}", f"({start}{_LAST}") for start in prefixes],
        )
        for count in counts:
            if isinstance(count, Exception):
                raise count
        return prefixes[counts.index(min(counts))]

    async def _names(self, project: str, source: str, after: str, count: int) -> list[str]:
        """Return the first profiles after one, of all or of a part of the label index."""
        listed = await awaited(
            self._redis.zrangebylex(
                keys.labels(project) if source else keys.profiles(project),
                f"({source}{after}" if after else f"[{source}" if source else "-",
                f"({source}{_LAST}" if source else "+",
                start=0,
                num=count,
            )
        )
        return [raw.decode().removeprefix(source) for raw in listed]

    async def _labelled(
        self, project: str, profiles: Sequence[str], labels: Mapping[str, str]
    ) -> list[str]:
        """Return those of some profiles that have all labels, by the index alone."""
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
        """Return the latest versions of those profiles that were not deleted meanwhile."""
        found: dict[ProfileName, tuple[VersionInfo, bytes | None]] = {}
        looked_for: Sequence[ProfileName] = names
        while looked_for:
            # Where a version has no content it was deleted since it was resolved, and another one
            # is the latest by now; or, if that is still the same one, its content is lost.
            before = {name: found.pop(name)[0] for name in looked_for if name in found}
            entries = await self._stored_latest(looked_for)
            found |= {info.name: (info, summary) for info, summary in entries}
            looked_for = [
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
        """Return the latest version of each profile that there is, with its summary if it has one.

        Version 0 stands for one that cannot be resolved.
        """
        own = [keys.ProfileKeys(name) for name in names]
        replies = await batch(
            self._redis,
            [self._resolve.call([profile.index, profile.aliases], ["", 0]) for profile in own],
        )
        infos: list[VersionInfo] = []
        for name, found in zip(names, replies, strict=True):
            if isinstance(found, Exception):
                _log.error("a stored profile cannot be read", profile=str(name), error=found)
                infos.append(VersionInfo(name, 0, "", from_ms(0)))
            elif len(found) > 1:
                infos.append(resolved(name, found))
        contents = [keys.ProfileKeys(info.name).content(info.digest) for info in infos]
        summaries = await batch(
            self._redis, [command("HGET", content, "summary") for content in contents]
        )
        return [
            (info, b"" if isinstance(summary, Exception) else summary)
            for info, summary in zip(infos, summaries, strict=True)
        ]

    async def nearest(self, name: ProfileName) -> list[str]:
        """Return the names most like one that is not there, the nearest first."""
        key, most = keys.profiles(name.project), _NEAREST_AMONG
        with store_errors():
            there = await awaited(
                self._redis.zrevrangebylex(key, f"({name.profile}", "-", start=0, num=most)
            )
            there += await awaited(
                self._redis.zrangebylex(key, f"({name.profile}", "+", start=0, num=most)
            )
        near = difflib.get_close_matches(name.profile, [raw.decode() for raw in there], n=3)
        return [str(ProfileName(name.project, profile)) for profile in near]


def _readable(info: VersionInfo, summary: bytes | None) -> ProfileSummary | None:
    try:
        return decode_summary(info.digest, summary or b"")
    except ProfileDamagedError:
        _log.exception("a stored profile cannot be read", profile=str(info.reference))
        return None


def label_pair(key: str, value: str) -> str:
    """Return a label as the index spells it; neither part holds a NUL."""
    return f"{key}\0{value}"

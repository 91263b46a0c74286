"""Concurrent lookups of a profile are shared, and never answered by an older lookup."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from advisor.advising.profile_cache import CachedProfiles
from advisor.errors import ProfileNotFoundError, StoreUnavailableError
from advisor.observability.metrics import Metrics
from advisor.registry.profiles import ProfileContent, VersionInfo
from advisor.registry.resource_names import ProfileName, ProfileReference
from advisor.wire import content_from_proto
from benchmarks.rpc.payload import profile

GROUPS = 20
INFO = VersionInfo(ProfileName("bench", "load"), 1, "0" * 64, datetime(2026, 1, 1, tzinfo=UTC))
NAME = ProfileReference(INFO.name)


class _Store:
    """Replaces Redis: counts lookups, and answers them once `answered` is set."""

    def __init__(self) -> None:
        self.lookups = 0
        self.lookup_started = asyncio.Event()
        self.answered = asyncio.Event()
        self.version = 1
        self.error: Exception | None = None
        self.content_error: Exception | None = None

    async def resolve(self, _: ProfileReference) -> VersionInfo:
        self.lookups += 1
        self.lookup_started.set()
        version = self.version
        await self.answered.wait()
        if self.error is not None:
            raise self.error
        return VersionInfo(INFO.name, version, str(version) * 64, INFO.create_time)

    async def content(self, _: VersionInfo) -> ProfileContent:
        if self.content_error is not None:
            raise self.content_error
        return content_from_proto(profile(GROUPS))


def _cached(store: _Store) -> CachedProfiles:
    return CachedProfiles(store, None, size=4, metrics=Metrics())  # type: ignore[arg-type]


def test_concurrent_requests_share_one_profile_lookup() -> None:
    async def scenario() -> None:
        store = _Store()
        store.answered.set()
        cached = _cached(store)
        found = await asyncio.gather(*(cached.resolve(NAME) for _ in range(10)))
        assert store.lookups == 1
        assert len({id(one.loaded) for one in found}) == 1

    asyncio.run(scenario())


def test_a_request_during_a_lookup_gets_a_newer_lookup_s_answer() -> None:
    async def scenario() -> None:
        store = _Store()
        cached = _cached(store)
        early = asyncio.create_task(cached.resolve(NAME))
        await store.lookup_started.wait()
        store.version = 2  # registered while the first lookup is under way
        late = asyncio.create_task(cached.resolve(NAME))
        await asyncio.sleep(0.02)
        store.answered.set()
        assert (await early).loaded.info.version == 1
        assert (await late).loaded.info.version == 2

    asyncio.run(scenario())


def test_a_cancelled_request_leaves_the_lookup_running_and_its_error_reaches_the_others() -> None:
    async def scenario() -> None:
        store = _Store()
        cached = _cached(store)
        tasks = [asyncio.create_task(cached.resolve(NAME)) for _ in range(3)]
        await store.lookup_started.wait()
        tasks[0].cancel()
        store.error = ProfileNotFoundError("load", [])
        store.answered.set()
        await asyncio.wait({tasks[0]})
        assert tasks[0].cancelled()
        for one in tasks[1:]:
            with pytest.raises(ProfileNotFoundError, match="load"):
                await one
        assert store.lookups == 1

    asyncio.run(scenario())


def test_the_cached_version_stays_in_use_if_a_lookup_fails_half_way() -> None:
    async def scenario() -> None:
        store = _Store()
        store.answered.set()
        cached = _cached(store)
        await cached.resolve(NAME)
        store.version = 2
        store.content_error = StoreUnavailableError("gone between two reads")
        for _ in range(2):
            found = await cached.resolve(NAME)
            assert (found.loaded.info.version, found.stale) == (1, True)
        store.content_error = None
        found = await cached.resolve(NAME)
        assert (found.loaded.info.version, found.stale) == (2, False)

    asyncio.run(scenario())

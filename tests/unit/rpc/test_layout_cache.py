"""The layout cache, the profile cache, and the telemetry queue behind it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from advisor.advising.advice import LoadedProfile, ResolvedProfile
from advisor.advising.profile_cache import CachedProfiles
from advisor.advising.telemetry import Telemetry
from advisor.errors import ProfileNotFoundError, StoreUnavailableError
from advisor.observability.metrics import Metrics
from advisor.policy import Reference
from advisor.registry.profiles import ProfileContent, VersionInfo
from advisor.registry.resource_names import ProfileName, ProfileReference, RunName
from advisor.registry.runs import EventToStore
from advisor.rpc.layout_cache import LayoutCache
from advisor.wire import content_from_proto
from benchmarks.rpc.payload import opening, profile
from fslr.advisor.v1 import policy_pb2

GROUPS = 20
INFO = VersionInfo(ProfileName("bench", "load"), 1, "0" * 64, datetime(2026, 1, 1, tzinfo=UTC))
NAME = ProfileReference(INFO.name)


class _Source:
    """Knows one profile."""

    def __init__(self) -> None:
        content = content_from_proto(profile(GROUPS))
        self.loaded = LoadedProfile(INFO, content.profile(), Reference(content.profile()))

    async def resolve(self, _: ProfileReference) -> ResolvedProfile:
        return ResolvedProfile(self.loaded)


class _Store:
    """Replaces Redis: counts lookups, and answers them once `answered` is set."""

    def __init__(self) -> None:
        self.lookups = 0
        self.asked = asyncio.Event()
        self.answered = asyncio.Event()
        self.version = 1
        self.error: Exception | None = None
        self.content_error: Exception | None = None

    async def resolve(self, _: ProfileReference) -> VersionInfo:
        self.lookups += 1
        self.asked.set()
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


def test_runs_of_one_model_share_layout_and_mapping_unless_rules_or_names_differ() -> None:
    async def opened() -> None:
        cache = LayoutCache(_Source())
        one, advice = await cache.open(opening("one", GROUPS))
        other, other_advice = await cache.open(opening("other", GROUPS))
        assert one.layout is other.layout
        assert advice.mapping is other_advice.mapping
        assert (one.run, other.run) != (None, None)
        assert str(one.run) != str(other.run)
        ruled = opening("ruled", GROUPS)
        ruled.policy.depth_rule = policy_pb2.DEPTH_RULE_COPY
        _, ruled_advice = await cache.open(ruled)
        assert ruled_advice.mapping is not advice.mapping
        assert ruled_advice.mapping.depth_rule is not advice.mapping.depth_rule
        renamed = opening("renamed", GROUPS)
        renamed.layout.groups[0].name = "blocks.0.kind0.bias"
        renamed.policy.unmatched_rule = policy_pb2.UNMATCHED_RULE_HOLD
        third, third_advice = await cache.open(renamed)
        assert third.layout is not one.layout
        assert not third_advice.mapping.matched.all()

    asyncio.run(opened())


def test_a_layout_above_the_limit_is_not_cached() -> None:
    async def opened() -> None:
        cache = LayoutCache(_Source(), max_names=GROUPS - 1)
        one, advice = await cache.open(opening("one", GROUPS))
        other, other_advice = await cache.open(opening("other", GROUPS))
        assert one.layout is not other.layout
        assert advice.mapping is not other_advice.mapping

    asyncio.run(opened())


def test_concurrent_requests_share_one_profile_lookup() -> None:
    async def asked() -> None:
        store = _Store()
        store.answered.set()
        cached = _cached(store)
        found = await asyncio.gather(*(cached.resolve(NAME) for _ in range(10)))
        assert store.lookups == 1
        assert len({id(one.loaded) for one in found}) == 1

    asyncio.run(asked())


def test_a_request_during_a_lookup_gets_a_newer_lookup_s_answer() -> None:
    async def asked() -> None:
        store = _Store()
        cached = _cached(store)
        early = asyncio.create_task(cached.resolve(NAME))
        await store.asked.wait()
        store.version = 2  # registered while the first lookup is under way
        late = asyncio.create_task(cached.resolve(NAME))
        await asyncio.sleep(0.02)
        store.answered.set()
        assert (await early).loaded.info.version == 1
        assert (await late).loaded.info.version == 2

    asyncio.run(asked())


def test_a_cancelled_request_leaves_the_lookup_running_and_its_error_reaches_the_others() -> None:
    async def asked() -> None:
        store = _Store()
        cached = _cached(store)
        asking = [asyncio.create_task(cached.resolve(NAME)) for _ in range(3)]
        await store.asked.wait()
        asking[0].cancel()
        store.error = ProfileNotFoundError("load", [])
        store.answered.set()
        await asyncio.wait({asking[0]})
        assert asking[0].cancelled()
        for one in asking[1:]:
            with pytest.raises(ProfileNotFoundError, match="load"):
                await one
        assert store.lookups == 1

    asyncio.run(asked())


def test_telemetry_is_limited_in_bytes_and_stores_the_events_of_a_run_at_once() -> None:
    class Runs:
        """Replaces Redis: keeps the events that it gets."""

        def __init__(self) -> None:
            self.given: list[tuple[str, int, int]] = []

        async def record(self, runs: Any) -> list[bool]:
            self.given += [(events[0].run.run, len(events), lost) for events, lost in runs]
            return [True] * len(runs)

    async def offered() -> None:
        runs = Runs()
        telemetry = Telemetry(runs, capacity=1_000, metrics=Metrics())
        large = bytes(32 * 2**20)
        for i in range(12):  # of 256 MiB, eight fit
            telemetry.offer(EventToStore(RunName("bench", "large"), b"", large, i, 0))
        assert telemetry.lost == 4
        telemetry.start()
        await telemetry.stop(deadline_s=5)
        assert sum(count for _, count, _ in runs.given) == 8
        assert sum(lost for _, _, lost in runs.given) == 4
        assert telemetry.lost == 0
        runs.given.clear()
        for i in range(30):
            name = RunName("bench", "even" if i % 2 == 0 else "odd")
            telemetry.offer(EventToStore(name, b"", b"event", i, 0))
        telemetry.start()
        await telemetry.stop(deadline_s=5)
        assert runs.given == [("even", 15, 0), ("odd", 15, 0)]

    asyncio.run(offered())


def test_a_lookup_that_fails_half_way_leaves_the_cached_version_in_use() -> None:
    async def asked() -> None:
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

    asyncio.run(asked())


def test_role_templates_count_towards_the_limit_of_the_layout_cache() -> None:
    async def opened() -> None:
        cache = LayoutCache(_Source(), max_names=GROUPS + 2)
        for count, is_kept in ((2, True), (3, False)):
            message = opening("one", GROUPS)
            message.layout.role_templates.extend(f"encoder{i}.s*" for i in range(count))
            one, _ = await cache.open(message)
            other, _ = await cache.open(message)
            assert (one.layout is other.layout) == is_kept

    asyncio.run(opened())

"""The replies of the real Lua scripts, as parsed in Python."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from advisor.auth.roles import Role
from advisor.auth.tokens import Token, TokenRecord
from advisor.errors import (
    AliasMovedError,
    PolicyMovedError,
    PolicyNotFoundError,
    ProfileNotFoundError,
    RunNotFoundError,
    TooManyMetricsError,
    VersionInUseError,
    VersionNotFoundError,
)
from advisor.policy import InvalidValueError, Policy
from advisor.registry.audit import AuditOrigin
from advisor.registry.profiles import Alias
from advisor.registry.resource_names import (
    PolicyReference,
    ProfileName,
    ProfileReference,
    RunName,
)
from advisor.registry.runs import EventToStore, MetricReport, RecordResult
from advisor.store import keys
from advisor.store.deletion import Deletions
from advisor.store.metrics import MetricStore
from advisor.store.policies import PolicyStore
from advisor.store.profiles import ProfileStore
from advisor.store.redis.commands import Script
from advisor.store.redis.connection import connect
from advisor.store.redis.embedded import EmbeddedRedis
from advisor.store.replies import OUTCOMES
from advisor.store.runs import RunStore
from advisor.store.tokens import TokenStore
from advisor.wire import content_from_proto
from tests.building import content_message

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ORIGIN = AuditOrigin(NOW)
GPT = ProfileName("default", "gpt")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """Record the outcomes of all scripts, by the enum that each script returns."""
    outcomes: dict[str, set[int]] = defaultdict(set)
    original = Script.__call__

    async def recording(self: Script, keys: Any, args: Any) -> Any:
        reply = await original(self, keys, args)
        for kind in OUTCOMES:
            if f"{kind.__name__}." in self.text:
                outcomes[kind.__name__].add(reply[0])
        return reply

    monkeypatch.setattr(Script, "__call__", recording)
    return outcomes


def run(tmp_path: Path, steps: Callable[[Redis], Awaitable[None]]) -> None:
    async def connected(url: str) -> None:
        async with connect(url, timeout_s=5, retries=0) as redis:
            await steps(redis)

    with EmbeddedRedis(tmp_path) as server:
        asyncio.run(connected(server.url))


def expect_all(kind_name: str, seen: dict[str, set[int]]) -> None:
    kind: type[IntEnum] = next(kind for kind in OUTCOMES if kind.__name__ == kind_name)
    assert seen[kind_name] == set(kind)


def version(suffix: str) -> ProfileReference:
    return ProfileReference(GPT, suffix)


def test_profiles_produce_every_outcome(tmp_path: Path, seen: dict[str, set[int]]) -> None:
    content = content_from_proto(content_message())

    async def steps(redis: Redis) -> None:
        store = ProfileStore(redis)
        with pytest.raises(ProfileNotFoundError, match="there is no profile"):
            await store.set_alias(version("1"), "prod", ORIGIN)
        with pytest.raises(ProfileNotFoundError, match="there is no profile"):
            await store.resolve(version(""))
        info, created = await store.register(GPT, content, ORIGIN)
        assert (info.version, info.create_time, info.aliases, created) == (1, NOW, (), True)
        with pytest.raises(VersionNotFoundError, match="no version or alias '7'"):
            await store.resolve(version("7"))
        with pytest.raises(VersionNotFoundError, match="no version or alias '7'"):
            await store.set_alias(version("7"), "prod", ORIGIN)
        named, before, alias = await store.set_alias(version("1"), "prod", ORIGIN)
        assert (named.version, named.digest, named.aliases) == (1, info.digest, ("prod",))
        assert (before, alias) == (0, Alias("prod", 1, 1))
        again, created = await store.register(GPT, content, ORIGIN)
        assert (again, created) == (named, False)
        found = await store.get(version("prod"))
        assert (found.info, found.aliases, found.versions) == (named, (alias,), (1,))
        with pytest.raises(AliasMovedError, match="names version 1, not none as expected"):
            await store.set_alias(version("1"), "prod", ORIGIN, expected_version=0)
        with pytest.raises(VersionInUseError, match="is named by alias prod"):
            await store.delete(version("1"), ORIGIN)
        with pytest.raises(VersionNotFoundError, match="no version or alias 'old'"):
            await store.delete_alias(GPT, "old", ORIGIN)
        await store.delete_alias(GPT, "prod", ORIGIN)
        with pytest.raises(VersionNotFoundError, match="no version or alias '9'"):
            await store.delete(version("9"), ORIGIN)
        await store.delete(version("1"), ORIGIN)

    run(tmp_path, steps)
    for kind in ("RegisterOutcome", "ResolveOutcome", "AliasOutcome", "DeleteOutcome"):
        expect_all(kind, seen)


def test_policies_produce_every_outcome(tmp_path: Path, seen: dict[str, set[int]]) -> None:
    team = PolicyReference("default", "team")

    async def steps(redis: Redis) -> None:
        store = PolicyStore(redis)
        for created in (True, False):
            stored, is_new = await store.set(team, Policy(), ORIGIN)
            assert (stored.reference.version, stored.create_time, is_new) == (1, NOW, created)
        with pytest.raises(PolicyMovedError, match="1"):
            await store.set(team, Policy(), ORIGIN, expected_version=0)

    run(tmp_path, steps)
    expect_all("VersionOutcome", seen)


def test_more_than_a_hundred_calls_wait_for_redis_at_once(tmp_path: Path) -> None:
    """As many runs can be watched, each with a connection; redis-py stops at 100 by itself."""

    async def steps(redis: Redis) -> None:
        waiting = [redis.xread({f"nothing-{i}": "0"}, block=200) for i in range(150)]
        assert await asyncio.gather(*waiting) == [[]] * 150

    run(tmp_path, steps)


def test_a_profile_of_thousands_of_versions_is_deleted_as_a_whole(tmp_path: Path) -> None:
    async def steps(redis: Redis) -> None:
        profiles, own = ProfileStore(redis), keys.ProfileKeys(GPT)
        await profiles.register(GPT, content_from_proto(content_message(rate=1.0)), ORIGIN)
        many = [part for number in range(2, 9_000) for part in (f"v:{number}", f"{number:064x}")]
        await redis.hset(own.index, items=many)
        await Deletions(redis).delete_profile(GPT, ORIGIN)
        left: list[Any] = await redis.hkeys(own.index)
        assert [field for field in left if field.startswith(b"v:")] == []
        similar = ProfileName("default", "gtp")
        await profiles.register(GPT, content_from_proto(content_message(rate=1.0)), ORIGIN)
        with pytest.raises(ProfileNotFoundError, match="did you mean projects/default/profiles/gp"):
            await Deletions(redis).delete_profile(similar, ORIGIN)

    run(tmp_path, steps)


def test_deletions_produce_every_outcome(tmp_path: Path, seen: dict[str, set[int]]) -> None:
    team, night = PolicyReference("default", "team"), RunName("default", "night")
    contents = [content_from_proto(content_message(rate=rate)) for rate in (1.0, 2.0, 3.0)]

    async def delete_profile(redis: Redis, profiles: ProfileStore) -> None:
        deletions = Deletions(redis)
        with pytest.raises(ProfileNotFoundError, match="there is no profile"):
            await deletions.delete_profile(GPT, ORIGIN)
        for content in contents[:2]:
            await profiles.register(GPT, content, ORIGIN)
        await profiles.set_alias(version("1"), "prod", ORIGIN)
        with pytest.raises(VersionInUseError, match="gpt is named by alias prod"):
            await deletions.delete_profile(GPT, ORIGIN)
        await profiles.delete_alias(GPT, "prod", ORIGIN)
        read = deletions._versions

        async def outdated(name: ProfileName) -> dict[int, str]:
            found = await read(name)
            if len(found) == 2:  # another caller registers a version meanwhile
                await profiles.register(GPT, contents[2], ORIGIN)
            return found

        deletions._versions = outdated  # type: ignore[method-assign]
        await deletions.delete_profile(GPT, ORIGIN)
        with pytest.raises(ProfileNotFoundError, match="there is no profile"):
            await profiles.resolve(version(""))
        info, _ = await profiles.register(GPT, contents[0], ORIGIN)
        assert info.version == 4  # numbers are not reused

    async def steps(redis: Redis) -> None:
        await delete_profile(redis, ProfileStore(redis))
        policies, runs, deletions = PolicyStore(redis), RunStore(redis), Deletions(redis)
        with pytest.raises(PolicyNotFoundError, match="there is no policy"):
            await deletions.delete_policy(team, ORIGIN)
        await policies.set(team, Policy(), ORIGIN)
        with pytest.raises(PolicyMovedError, match="is 1, not 2 as expected"):
            await deletions.delete_policy(team, ORIGIN, expected_version=2)
        with pytest.raises(InvalidValueError, match="names a version; all are deleted"):
            await deletions.delete_policy(PolicyReference("default", "team", 1), ORIGIN)
        await deletions.delete_policy(team, ORIGIN, expected_version=1)
        assert await policies.page("default", after="", size=9) == ([], "")
        stored, _ = await policies.set(team, Policy(), ORIGIN)
        assert stored.reference.version == 2  # numbers are not reused
        with pytest.raises(RunNotFoundError, match="night"):
            await deletions.delete_run(night, ORIGIN)
        await runs.record([([EventToStore(night, b"", b"event", 3, 0)], 0)])
        await deletions.delete_run(night, ORIGIN)
        assert await runs.history(night, after="", size=9) == []
        assert await runs.page("default", after=None, size=9) == ([], None)

    run(tmp_path, steps)
    for kind in ("DeleteAllOutcome", "DeleteVersionsOutcome", "DeleteRunOutcome"):
        expect_all(kind, seen)


def test_reports_of_metrics_produce_every_outcome_and_live_as_long_as_the_run(
    tmp_path: Path, seen: dict[str, set[int]]
) -> None:
    night = RunName("default", "night")
    own = keys.RunKeys(night)

    async def steps(redis: Redis) -> None:
        store, runs = MetricStore(redis), RunStore(redis)
        with pytest.raises(RunNotFoundError, match="night"):
            await store.report(night, [MetricReport(3, (("auc", 0.5),))], 1_000)
        event = EventToStore(night, b"", b"event", 3, 0)
        await runs.record([([event], 0)])
        reports = [MetricReport(step, (("auc", 0.5), ("loss", 1e-9))) for step in (3, 4)]
        await store.report(night, reports, 1_000)
        many = MetricReport(5, tuple((str(name), 0.5) for name in range(99)))
        with pytest.raises(TooManyMetricsError, match="would have 101 metrics"):
            await store.report(night, [many], 1_000)
        stored = await store.page(night, after="", size=9)
        assert [(r.step, r.values) for r in stored] == [
            (step, {"auc": 0.5, "loss": 1e-9}) for step in (3, 4)
        ]
        assert stored[0].time.timestamp() == 1
        all_keys = (own.summary, own.events, own.metrics, own.metric_names)
        for extend in (store.report(night, reports, 1_000), runs.record([([event], 0)])):
            for key in all_keys:
                await redis.expire(key, 5)
            await extend
            assert all([await redis.ttl(key) > 1_000 for key in all_keys])

    run(tmp_path, steps)
    expect_all("ReportMetricsOutcome", seen)


@pytest.mark.parametrize(
    ("sessions", "is_concurrent"),
    [
        ("aaa", False),
        ("", False),
        ("aab", False),  # resumed
        ("abc", False),  # resumed twice
        ("aba", True),
        ("abab", True),
        ("a-b-", False),  # a caller without a session in between
        ("abcdefghij", False),
        ("abcb", True),
    ],
)
def test_two_jobs_that_report_in_turns_are_noticed(
    sessions: str, is_concurrent: bool, tmp_path: Path
) -> None:
    night = RunName("default", "night")

    async def steps(redis: Redis) -> None:
        store = RunStore(redis)
        events = [
            EventToStore(night, b"", b"e", step, 1_000 * step, session.strip("-"))
            for step, session in enumerate(sessions or "-")
        ]
        single = [(await store.record([([event], 0)]))[0] for event in events]
        assert (RecordResult.CONCURRENT in single) == is_concurrent
        assert ((await store.get(night)).concurrent_time is not None) == is_concurrent
        other = RunName("default", "batched")
        batched = [event._replace(run=other) for event in events]
        result = await store.record([(batched, 0)])
        assert result == [RecordResult.CONCURRENT if is_concurrent else RecordResult.STORED]

    run(tmp_path, steps)


def test_tokens_produce_every_outcome(tmp_path: Path, seen: dict[str, set[int]]) -> None:
    token = Token.new("default")
    record = TokenRecord(token.project, token.id, "nightly", Role.TRAINER, token.digest, NOW)

    async def steps(redis: Redis) -> None:
        store = TokenStore(redis)
        assert await store.add(record, ORIGIN)
        assert not await store.add(record, ORIGIN)
        assert await store.list("default") == [record]
        assert await store.revoke(record, ORIGIN)
        assert not await store.revoke(record, ORIGIN)

    run(tmp_path, steps)
    expect_all("TokenOutcome", seen)

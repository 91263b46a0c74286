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
    ProfileNotFoundError,
    VersionInUseError,
    VersionNotFoundError,
)
from advisor.policy import Policy
from advisor.registry.audit import AuditOrigin
from advisor.registry.profiles import Alias
from advisor.registry.resource_names import PolicyReference, ProfileName, ProfileReference
from advisor.store.policies import PolicyStore
from advisor.store.profiles import ProfileStore
from advisor.store.redis.commands import Script
from advisor.store.redis.connection import connect
from advisor.store.redis.embedded import EmbeddedRedis
from advisor.store.replies import OUTCOMES
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
    expect_all("PolicyOutcome", seen)


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

"""Runs of one model share its layout and its mapping."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from advisor.advising.advice import Advice
from advisor.advising.recipe_cache import CachedRecipes
from advisor.advising.resolved_profile import LoadedProfile, ResolvedProfile
from advisor.advising.run_recipe import RunRecipe
from advisor.errors import RecipeNotFoundError, StoreUnavailableError
from advisor.policy import InvalidValueError, Reference
from advisor.policy.smoothing import smooth
from advisor.recipes import shipped_recipe
from advisor.registry.profiles import VersionInfo
from advisor.registry.recipes import StoredRecipe
from advisor.registry.resource_names import ProfileName, ProfileReference, RecipeReference
from advisor.rpc.layout_cache import LayoutCache
from advisor.wire import content_from_proto
from benchmarks.rpc.payload import opening, profile
from fslr.advisor.v1 import policy_pb2

GROUPS = 20
INFO = VersionInfo(ProfileName("bench", "load"), 1, "0" * 64, datetime(2026, 1, 1, tzinfo=UTC))


class _Source:
    """Knows one profile."""

    def __init__(self) -> None:
        content = content_from_proto(profile(GROUPS))
        self.loaded = LoadedProfile(INFO, content.profile(), Reference(content.profile()))

    async def resolve(self, _: ProfileReference) -> ResolvedProfile:
        return ResolvedProfile(self.loaded)


class _Recipes:
    """Knows one recipe, whose latest version can be raised."""

    def __init__(self) -> None:
        self.latest = 1
        self.is_available = True
        self.is_deleted = False
        self.table = "mup-adam"

    async def get(self, reference: RecipeReference) -> StoredRecipe:
        if not self.is_available:
            raise StoreUnavailableError("it is stopped")
        if reference.recipe != "ours" or self.is_deleted:
            raise RecipeNotFoundError(str(reference))
        version = reference.version or self.latest
        named = RecipeReference(reference.project, reference.recipe, version)
        return StoredRecipe(named, shipped_recipe(self.table), INFO.create_time)


def test_runs_of_one_model_share_layout_and_mapping_unless_rules_or_names_differ() -> None:
    async def opened() -> None:
        cache = LayoutCache(_Source(), CachedRecipes(_Recipes(), size=4))
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


def test_a_smoothed_reference_is_made_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []

    def smoothing(*arguments: Any) -> Any:
        threads.append(threading.get_ident())
        return smooth(*arguments)

    monkeypatch.setattr("advisor.policy.reference.smooth", smoothing)

    async def opened() -> None:
        cache = LayoutCache(_Source(), CachedRecipes(_Recipes(), size=4))
        for name in ("one", "other"):  # the first one is kept
            message = opening(name, GROUPS)
            message.policy.reference_smoothing = 0.5
            await cache.open(message)

    asyncio.run(opened())
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def test_a_run_that_cannot_be_aligned_is_refused_when_it_opens() -> None:
    async def opened() -> None:
        cache = LayoutCache(_Source(), CachedRecipes(_Recipes(), size=4))
        message = opening("one", GROUPS)
        message.policy.alignment = policy_pb2.ALIGNMENT_PROGRESS
        message.total_steps = 0
        with pytest.raises(InvalidValueError, match="total_steps: alignment by progress needs"):
            await cache.open(message)
        message.total_steps = 100
        await cache.open(message)

    asyncio.run(opened())


def test_runs_of_different_seeds_share_a_mapping_and_keep_their_initial_weights() -> None:
    async def opened() -> None:
        cache = LayoutCache(_Source(), CachedRecipes(_Recipes(), size=4))
        messages = [opening(name, GROUPS) for name in ("one", "other", "unknown")]
        for message, rms in zip(messages, (0.1, 0.2), strict=False):
            for group in message.layout.groups:
                group.initial_rms = rms
        runs = [await cache.open(message) for message in messages]
        assert [run.layout.initial_rms for run, _ in runs] == [
            (0.1,) * GROUPS,
            (0.2,) * GROUPS,
            (),
        ]
        assert len({id(advice.mapping) for _, advice in runs}) == 1

    asyncio.run(opened())


def test_a_layout_above_the_limit_is_not_cached() -> None:
    async def opened() -> None:
        cache = LayoutCache(_Source(), CachedRecipes(_Recipes(), size=4), max_names=GROUPS - 1)
        one, advice = await cache.open(opening("one", GROUPS))
        other, other_advice = await cache.open(opening("other", GROUPS))
        assert one.layout is not other.layout
        assert advice.mapping is not other_advice.mapping

    asyncio.run(opened())


def test_role_templates_count_towards_the_limit_of_the_layout_cache() -> None:
    async def opened() -> None:
        cache = LayoutCache(_Source(), CachedRecipes(_Recipes(), size=4), max_names=GROUPS + 2)
        for count, is_kept in ((2, True), (3, False)):
            message = opening("one", GROUPS)
            message.layout.role_templates.extend(f"encoder{i}.s*" for i in range(count))
            one, _ = await cache.open(message)
            other, _ = await cache.open(message)
            assert (one.layout is other.layout) == is_kept

    asyncio.run(opened())


def test_runs_of_one_model_share_the_factors_of_a_recipe_unless_they_depend_on_the_run() -> None:
    async def opened() -> None:
        store = _Recipes()
        cache = LayoutCache(_Source(), CachedRecipes(store, size=4))

        async def recipe_of(recipe: str, batch_size: int = 0) -> tuple[RunRecipe, Advice]:
            message = opening("one", GROUPS)
            message.recipe, message.batch_size = recipe, batch_size
            _, advice = await cache.open(message)
            assert advice.recipe is not None
            return advice.recipe, advice

        latest = "projects/bench/recipes/ours"
        (first, one), (again, other) = [await recipe_of(latest) for _ in range(2)]
        assert first is again
        assert one.plan == other.plan
        assert first.name == f"{latest}@1"
        assert (await recipe_of(latest, batch_size=64))[0] is not first
        assert (await recipe_of("mup-adam"))[0].name == "mup-adam"
        store.latest = 2
        assert (await recipe_of(latest))[0].name == f"{latest}@2"
        assert (await recipe_of(f"{latest}@1"))[0].name == f"{latest}@1"
        store.is_available = False
        stale, advice = await recipe_of(latest)
        assert (stale.name, stale.stale, advice.stale) == (f"{latest}@2", True, True)
        with pytest.raises(StoreUnavailableError, match="it is stopped"):
            await recipe_of("projects/bench/recipes/other")
        assert (await recipe_of(f"{latest}@1"))[0].stale
        store.is_available = True
        assert not (await recipe_of(f"{latest}@1"))[0].stale
        with pytest.raises(RecipeNotFoundError, match="no recipe projects/bench/recipes/other"):
            await recipe_of("projects/bench/recipes/other")
        # After a failover, the number of a lost version may be given to another table.
        store.table = "completep"
        before, now = (await recipe_of(latest))[0], store.latest
        assert (before.name, now) == (f"{latest}@2", 2)
        assert before.factors.recipe.name == "completep"
        store.is_deleted = True  # an advisor that has read it agrees with one that has not
        with pytest.raises(RecipeNotFoundError, match=f"no recipe {latest}@1"):
            await recipe_of(f"{latest}@1")

    asyncio.run(opened())

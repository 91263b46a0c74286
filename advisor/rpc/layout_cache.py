"""Runs are opened here; runs of the same model share its layout and its mapping.

Converting a layout and mapping it onto a profile's layout takes longer than the rest of a first
answer, and the results never change. Both are cached by a digest of the layout: a hundred streams
of one model hold one layout and one mapping, and unary calls compute them only once. The initial
weights of a layout differ between seeds, so they are not part of the digest.
"""

from __future__ import annotations

from hashlib import blake2b

from cachetools import LRUCache

from advisor.advising.advice import Advice
from advisor.advising.opening import Opening
from advisor.advising.recipes import RecipeSource, ResolvedRecipe
from advisor.advising.resolved_profile import ProfileSource, ResolvedProfile
from advisor.advising.run_recipe import RunRecipe
from advisor.policy import Layout, LayoutMapping, check_total_steps
from advisor.rpc.offloading import compute, smooth_reference
from advisor.wire import opening_from_proto
from advisor.wire.field_paths import field_path
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2

_MAX_NAMES = 100_000  # a name takes less than 1 KiB, with its part of the mapping

_MappingKey = tuple[object, ...]


class LayoutCache:
    """Opens runs, and caches their layouts and mappings.

    Args:
        profiles: Resolves the profiles of runs.
        recipes: Resolves the recipes of runs.
        max_names: Maximum number of names in all cached layouts, counting groups, frozen names and
            role templates, and likewise in all cached mappings. A larger layout is never cached.
    """

    def __init__(
        self, profiles: ProfileSource, recipes: RecipeSource, max_names: int = _MAX_NAMES
    ) -> None:
        self._profiles = profiles
        self._recipes = recipes
        self._max_names = max_names
        self._layouts: LRUCache[bytes, Layout] = LRUCache(max_names, getsizeof=_count_names)
        self._run_recipes: LRUCache[_MappingKey, RunRecipe] = LRUCache(
            max_names, getsizeof=lambda recipe: len(recipe.layout)
        )
        self._mappings: LRUCache[_MappingKey, LayoutMapping] = LRUCache(
            max_names, getsizeof=lambda mapping: len(mapping.matches) + len(mapping.targets)
        )

    async def open(self, message: pb.RunOpening) -> tuple[Opening, Advice]:
        """Return the opening of a message and the advice for its run.

        Raises:
            InvalidValueError: A value is out of its range.
            StoreUnavailableError: The profile is not cached, and the store is unavailable.
            NotFoundError: The profile, version or alias does not exist, or the recipe.
        """
        digest = _digest(message.layout)
        names = len(message.layout.groups) + len(message.layout.frozen_names)
        cached = self._layouts.get(digest)
        if cached is not None:
            opening = opening_from_proto(message, cached)
        else:
            opening = await compute(names, opening_from_proto, message)
            if _count_names(opening.layout) <= self._max_names:
                self._layouts[digest] = opening.layout.with_initial_rms(())
        resolved = await self._profiles.resolve(opening.profile)
        with field_path("opening"):
            check_total_steps(resolved.rules(opening), opening.total_steps)
            recipe = resolved.recipe(opening)
        found = None if recipe is None else await self._recipes.resolve(recipe)
        return opening, await self._advice(digest, names, resolved, opening, found)

    async def _advice(
        self,
        digest: bytes,
        names: int,
        resolved: ResolvedProfile,
        opening: Opening,
        recipe: ResolvedRecipe | None,
    ) -> Advice:
        info = resolved.loaded.info
        rules = resolved.rules(opening)
        await smooth_reference(resolved.loaded, rules)
        key = (digest, info.name, info.version, info.digest, rules.depth_rule, rules.unmatched_rule)
        recipe_key = (*key, *_recipe_key(opening, recipe))
        applied = None if recipe is None else self._run_recipes.get(recipe_key)
        mapping = self._mappings.get(key)
        if mapping is not None and (recipe is None or applied is not None):
            return Advice(resolved, opening, mapping, applied)
        names += resolved.loaded.name_count
        with field_path("opening"):
            advice = await compute(names, Advice, resolved, opening, mapping, applied or recipe)
        if len(advice.mapping.matches) + len(advice.mapping.targets) <= self._max_names:
            self._mappings[key] = advice.mapping
        if advice.recipe is not None and len(advice.layout) <= self._max_names:
            self._run_recipes[recipe_key] = advice.recipe
        return advice


def _recipe_key(opening: Opening, recipe: ResolvedRecipe | None) -> tuple[object, ...]:
    """Return what the factors of a recipe depend on beside layout and profile."""
    if recipe is None:
        return ()
    training = opening.training
    return (
        recipe.name,
        recipe.recipe,  # a Redis that lost writes gives names of lost versions again
        recipe.stale,
        training.optimizer,
        training.batch_size,
        opening.total_steps,
        *sorted((ratio.value, value) for ratio, value in opening.ratios.items()),
    )


def _digest(layout: layout_pb2.Layout) -> bytes:
    """Return a digest of a layout without its initial weights."""
    if any(group.HasField("initial_rms") for group in layout.groups):
        seedless = layout_pb2.Layout()
        seedless.CopyFrom(layout)
        for group in seedless.groups:
            group.ClearField("initial_rms")
        layout = seedless
    return blake2b(layout.SerializeToString(), digest_size=32).digest()


def _count_names(layout: Layout) -> int:
    return len(layout) + len(layout.frozen_names) + len(layout.role_templates)

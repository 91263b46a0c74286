"""The recipe of a run in sentences."""

from __future__ import annotations

from advisor.report.followed_recipe import FollowedRecipe, FollowedRoleRow
from advisor.report.sentences import comma
from advisor.report.texts import Texts

_MAX_ROLES = 5  # named in one sentence


def recipe_sentences(
    recipe: FollowedRecipe, texts: Texts, *, observes_only: bool
) -> tuple[list[str], str]:
    """Return what a recipe does in a run, and a warning if measurements contradict it.

    Args:
        recipe: The recipe.
        texts: The language's texts.
        observes_only: Whether the run applies no multipliers.

    Returns:
        The sentences, and the warning; empty: they do not.
    """
    key = "recipe.would_follow" if observes_only else "recipe.follows"
    found = [texts(key, name=recipe.name)]
    if recipe.without_rule:
        found.append(texts("recipe.without_rule", count=recipe.without_rule, groups=recipe.groups))
    if not observes_only:
        found.append(
            texts("recipe.initial_weights.follow")
            if recipe.initial_weights_follow
            else texts("recipe.initial_weights.unknown")
        )
    apart, count = recipe.apart, recipe.compared
    if not apart:
        found.append(_agreement(recipe, texts))
        return found, ""
    names = comma(texts).join(_difference(row, texts) for row in apart[:_MAX_ROLES])
    if len(apart) > _MAX_ROLES:
        names = texts("check.more", names=names, count=len(apart) - _MAX_ROLES)
    return found, texts("recipe.disagrees", off=len(apart), count=count, names=names)


def role_verdict(row: FollowedRoleRow, texts: Texts) -> str:
    """Return whether recipe and measurement agree in a role, in a word or two.

    Args:
        row: The role.
        texts: The language's texts.
    """
    if row.agrees is None:
        return texts("recipe.role.not_compared")
    return texts("recipe.role.agrees" if row.agrees else "recipe.role.disagrees")


def _agreement(recipe: FollowedRecipe, texts: Texts) -> str:
    if recipe.compared:
        return texts("recipe.agrees", count=recipe.compared)
    if not recipe.is_checked:
        return texts("recipe.early", step=recipe.first_check_step)
    return texts("recipe.nothing_compared")


def _difference(row: FollowedRoleRow, texts: Texts) -> str:
    return texts(
        "recipe.difference",
        role=row.role,
        recipe=f"{row.recipe:.3g}",
        measured=f"{row.measured:.3g}",
    )

"""What initial weights are multiplied by, so that they are as large as a recipe wants them."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fslr.errors import AttachError
from fslr.training.recipe import Recipe

_ROUNDING = 1e-6  # relative; norms of float32 tensors differ by about this much
_FAR = 1.2  # factor; initial weights of one scale differ by less
_NUMBER = re.compile(r"(?<![^./])\d+(?![^./])")
_MAX_NAMES = 4  # in one message


@dataclass(frozen=True, slots=True)
class InitialScaling:
    """How the initial weights of a run are scaled; one entry for each group, in layout order.

    Attributes:
        factors: What each tensor is multiplied by; 1 changes nothing.
        rms: Root mean square of each tensor afterwards; None: unknown.
        warnings: What cannot be scaled, in sentences.
    """

    factors: tuple[float, ...]
    rms: tuple[float | None, ...]
    warnings: tuple[str, ...]

    @property
    def scaled(self) -> int:
        """Number of tensors that change."""
        return sum(1 for factor in self.factors if factor != 1.0)


def initial_scaling(
    recipe: Recipe, rms: Sequence[float | None], groups: Sequence[str]
) -> InitialScaling:
    """Return how initial weights are scaled to what a recipe wants.

    Groups whose names differ in their numbers only, and for which the recipe has the same factor,
    are scaled alike, so that those of a role keep their ratios, and the chance in the size of small
    tensors does not matter. Numbers alone do not make a role: the layers of an
    ``nn.Sequential`` have different factors. A tensor of zeros cannot be scaled, and one that is
    zero in the base is not made zero.

    Args:
        recipe: The recipe.
        rms: Root mean square of each tensor's entries; None: unknown.
        groups: The groups' names.
    """
    roles = list(zip(map(role_of, groups), recipe.initial_scales, strict=True))
    squares: defaultdict[tuple[str, float], list[tuple[float, float]]] = defaultdict(list)
    for role, wanted, now in zip(roles, recipe.initial_rms, rms, strict=True):
        if wanted and now:
            squares[role].append((wanted**2, now**2))
    of_roles = {role: _factor(pairs) for role, pairs in squares.items()}
    factors, after = [], []
    zero, not_zero = [], []
    for group, role, wanted, now in zip(groups, roles, recipe.initial_rms, rms, strict=True):
        factor = of_roles[role] if wanted and now else 1.0
        if wanted and now == 0:
            zero.append(group)
        elif wanted == 0 and now:
            not_zero.append(group)
        factors.append(factor)
        after.append(None if now is None else now * factor)
    warnings = []
    if zero:
        warnings.append(
            f"initial weights that are zero cannot be scaled, but in the base they are not zero: "
            f"{listed(zero)}; start both in the same way"
        )
    if not_zero:
        warnings.append(
            "initial weights that are zero in the base are not zero here, and are left as they "
            f"are: {listed(not_zero)}; start both in the same way"
        )
    return InitialScaling(tuple(factors), tuple(after), tuple(warnings))


def refuse_unscalable(recipe: Recipe, groups: Sequence[str]) -> None:
    """Refuse to scale initial weights if the recipe or the base's profile does not say how.

    Args:
        recipe: The recipe.
        groups: The groups' names.

    Raises:
        AttachError: The recipe has no rule for any group, or one with a scale for a group whose
            initial weights the base's profile does not know.
    """
    if not any(recipe.has_rule):
        raise AttachError(
            f"initialize=True scales initial weights, but the recipe {recipe.name} has no rule for "
            "any group, for example because it does not hold for the optimizer; nothing was "
            "changed; choose one that does"
        )
    unknown = [
        role_of(group)
        for group, scale, rms in zip(groups, recipe.initial_scales, recipe.initial_rms, strict=True)
        if scale != 1 and rms is None
    ]
    if unknown:
        raise AttachError(
            "initialize=True scales initial weights, but the base's profile does not know those of "
            f"{listed(dict.fromkeys(unknown))}; nothing was changed; record the base from its "
            "first step on"
        )


def role_of(name: str) -> str:
    """Return a name without its numbers, such as ``blocks.*.mlp.weight``."""
    return _NUMBER.sub("*", name)


def _factor(squares: Sequence[tuple[float, float]]) -> float:
    """Return the factor from present to wanted mean squares; 1 if they differ by rounding only."""
    wanted, now = map(math.fsum, zip(*squares, strict=True))
    factor = math.sqrt(wanted / now)
    return factor if abs(math.log(factor)) > _ROUNDING else 1.0


def needed_scaling(recipe: Recipe, rms: Sequence[float | None], groups: Sequence[str]) -> str:
    """Return a warning if initial weights differ from what a recipe wants; empty if they do not.

    Args:
        recipe: The recipe.
        rms: Root mean square of each tensor's entries; None: unknown.
        groups: The groups' names.
    """
    factors = initial_scaling(recipe, rms, groups).factors
    far = {
        role_of(group): factor
        for group, factor in zip(groups, factors, strict=True)
        if abs(math.log(factor)) > math.log(_FAR)
    }
    if not far:
        return ""
    return (
        f"the recipe {recipe.name} wants other initial weights: {listed(far)} by a factor of "
        f"{range_of(far.values())}"
    )


def listed(names: Iterable[str]) -> str:
    """Return some names in a few words, such as ``a, b, c, d and 3 more``."""
    known = list(names)
    more = f" and {len(known) - _MAX_NAMES} more" if len(known) > _MAX_NAMES else ""
    return ", ".join(known[:_MAX_NAMES]) + more


def range_of(factors: Iterable[float]) -> str:
    """Return the range of factors, such as ``0.25 to 0.5``; empty if there are none."""
    known = list(factors)
    if not known:
        return ""
    low, high = format(min(known), ".3g"), format(max(known), ".3g")
    return low if low == high else f"{low} to {high}"

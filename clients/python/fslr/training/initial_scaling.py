"""What initial weights are multiplied by, so that they are as large as a recipe wants them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fslr.training.recipe import Recipe

_ROUNDING = 1e-6  # relative; norms of float32 tensors differ by about this much
_MAX_NAMES = 4  # in one message


@dataclass(frozen=True, slots=True)
class InitialScaling:
    """How the initial weights of a run are scaled; one entry for each group, in layout order.

    Attributes:
        factors: What each tensor is multiplied by; 1 leaves it as it is.
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

    A tensor of zeros cannot be scaled, and one that starts from zero in the base is not made zero.

    Args:
        recipe: The recipe.
        rms: Root mean square of each tensor's entries; None: unknown.
        groups: The groups' names.
    """
    factors, after = [], []
    zero, not_zero = [], []
    for group, wanted, now in zip(groups, recipe.initial_rms, rms, strict=True):
        factor = 1.0
        if wanted is not None and now is not None and wanted != now:
            if now == 0:
                zero.append(group)
            elif wanted == 0:
                not_zero.append(group)
            elif abs(math.log(wanted / now)) > _ROUNDING:
                factor = wanted / now
        factors.append(factor)
        after.append(None if now is None else now * factor)
    warnings = []
    if zero:
        warnings.append(
            f"{listed(zero)} start from zero and cannot be scaled, but in the base they do not; "
            "start both in the same way"
        )
    if not_zero:
        warnings.append(
            f"{listed(not_zero)} start from zero in the base and not here, and are left as they "
            "are; start both in the same way"
        )
    return InitialScaling(tuple(factors), tuple(after), tuple(warnings))


def needed_scaling(recipe: Recipe, rms: Sequence[float | None], groups: Sequence[str]) -> str:
    """Return a warning if initial weights differ from what a recipe wants; empty if they do not.

    Args:
        recipe: The recipe.
        rms: Root mean square of each tensor's entries; None: unknown.
        groups: The groups' names.
    """
    factors = initial_scaling(recipe, rms, groups).factors
    far = {
        group: factor
        for group, factor in zip(groups, factors, strict=True)
        if abs(math.log(factor)) > math.log(_FAR)
    }
    if not far:
        return ""
    return (
        f"the recipe {recipe.name} wants other initial weights: {listed(far)} by a factor of "
        f"{range_of(far.values())}; pass initialize=True to scale them before the first step"
    )


_FAR = 1.2  # factor; initial weights of one scale differ by less


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

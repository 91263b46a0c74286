"""What initial weights are multiplied by, so that they are as large as a recipe wants them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from fslr.advisor.v1 import layout_pb2
from fslr.errors import AttachError
from fslr.training.recipe import Recipe
from fslr.training.roles import roles_of_layout

_ROUNDING = 1e-6  # relative; norms of float32 tensors differ by about this much
_FAR = 1.2  # factor; initial weights of one scale differ by less
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
    recipe: Recipe, rms: Sequence[float | None], layout: layout_pb2.Layout
) -> InitialScaling:
    """Return how initial weights are scaled to what a recipe wants.

    The same tensors of the blocks of a role are scaled alike if the recipe has one factor for them,
    so that they keep their ratios, and the chance in the size of small tensors does not matter.
    Their modules have to have the same shapes: PyTorch draws a bias from the fan-in of its layer,
    so layers of different shapes have biases of different sizes, even if one role names them all. A
    tensor of zeros cannot be scaled, and one that is zero in the base is not made zero.

    Args:
        recipe: The recipe.
        rms: Root mean square of each tensor's entries; None: unknown.
        layout: The run's layout.
    """
    groups = [group.name for group in layout.groups]
    pools = list(zip(_pools(layout), recipe.initial_scales, strict=True))
    squares: defaultdict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for pool, wanted, now in zip(pools, recipe.initial_rms, rms, strict=True):
        if wanted and now:
            squares[pool].append((wanted**2, now**2))
    of_pools = {pool: _factor(pairs) for pool, pairs in squares.items()}
    factors, after = [], []
    zero, not_zero = [], []
    for group, pool, wanted, now in zip(groups, pools, recipe.initial_rms, rms, strict=True):
        factor = of_pools[pool] if wanted and now else 1.0
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


def refuse_unscalable(recipe: Recipe, layout: layout_pb2.Layout) -> None:
    """Refuse to scale initial weights if the recipe or the base's profile does not say how.

    Args:
        recipe: The recipe.
        layout: The run's layout.

    Raises:
        AttachError: The recipe has no rule for any group, or one with a scale for a group whose
            initial weights the base's profile does not know.
    """
    if not any(recipe.has_rule):
        raise AttachError(
            f"initialize=True scales initial weights, but the recipe {recipe.name} has no rule for "
            "any group, for example because it does not hold for the optimizer; nothing was "
            "changed; choose one that does, or leave out initialize=True"
        )
    unknown = [
        role
        for role, scale, rms in zip(
            *(roles_of_layout(layout), recipe.initial_scales, recipe.initial_rms), strict=True
        )
        if scale != 1 and rms is None
    ]
    if unknown:
        raise AttachError(
            "initialize=True scales initial weights, but the base's profile does not know those of "
            f"{listed(dict.fromkeys(unknown))}; nothing was changed; record the base from its "
            "first step on"
        )


def _pools(layout: layout_pb2.Layout) -> list[Hashable]:
    """Return a key for each group; the groups with the same one are scaled alike."""
    modules = [_module_of(group.name) for group in layout.groups]
    shapes: defaultdict[str, set[tuple[str, tuple[int, ...]]]] = defaultdict(set)
    for module, group in zip(modules, layout.groups, strict=True):
        shapes[module].add((group.name.removeprefix(module), tuple(group.shape)))
    return [
        (role, frozenset(shapes[module]))
        for role, module in zip(roles_of_layout(layout), modules, strict=True)
    ]


def _module_of(name: str) -> str:
    """Return the part of a name before its last dot or slash."""
    return name[: max(name.rfind("."), name.rfind("/"), 0)]


def _factor(squares: Sequence[tuple[float, float]]) -> float:
    """Return the factor from present to wanted mean squares; 1 if they differ by rounding only."""
    wanted, now = map(math.fsum, zip(*squares, strict=True))
    factor = math.sqrt(wanted / now)
    return factor if abs(math.log(factor)) > _ROUNDING else 1.0


def is_far(factor: float) -> bool:
    """Return whether a factor on initial weights is more than their chance."""
    return abs(math.log(factor)) > math.log(_FAR)


def needed_scaling(recipe: Recipe, rms: Sequence[float | None], layout: layout_pb2.Layout) -> str:
    """Return a warning if initial weights differ from what a recipe wants; empty if they do not.

    Args:
        recipe: The recipe.
        rms: Root mean square of each tensor's entries; None: unknown.
        layout: The run's layout.
    """
    factors = initial_scaling(recipe, rms, layout).factors
    far = [
        (role, factor)
        for role, factor in zip(roles_of_layout(layout), factors, strict=True)
        if is_far(factor)
    ]
    if not far:
        return ""
    roles = dict.fromkeys(role for role, _ in far)
    return (
        f"the recipe {recipe.name} wants other initial weights: {listed(roles)} by a factor of "
        f"{range_of(factor for _, factor in far)}"
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

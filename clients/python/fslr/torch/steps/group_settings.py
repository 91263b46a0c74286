"""Puts a recipe's factors on the settings of optimizer groups that a step function sees.

The optimizer's own groups stay as their user wrote them. ``eps``, ``betas`` and ``weight_decay`` of
the split groups are theirs times the factors, so schedules of these settings count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fslr.torch.steps.weight_decay import DecayKind, WeightDecay
from fslr.training.setting_factors import SettingFactors

WRITTEN = frozenset({"eps", "betas"})
"""Entries of a group that :func:`write_settings` writes; weight decay has a function of its own."""
_LARGEST_BETA = 1.0


def write_settings(factors: SettingFactors, group: dict[str, Any], values: dict[str, Any]) -> None:
    """Set epsilon and betas of a part of a group from those of the group.

    Args:
        factors: The factors.
        group: The optimizer's group, as its user sees it.
        values: The part, as the step function sees it.
    """
    if factors.epsilon != 1.0 and _is_number(group.get("eps")):
        values["eps"] = group["eps"] * factors.epsilon
    if _changes_betas(factors) and _are_betas(group.get("betas")):
        scales = factors.one_minus_beta1, factors.one_minus_beta2
        values["betas"] = tuple(
            beta if scale == 1.0 else _scaled_beta(beta, scale)
            for beta, scale in zip(group["betas"], scales, strict=True)
        )


def settings_not_taken(
    optimizer: torch.optim.Optimizer,
    factors: Iterable[tuple[Tensor, SettingFactors]],
    *,
    by_update: bool,
) -> str:
    """Return a line about the settings that a recipe changes and an optimizer cannot take.

    Args:
        optimizer: An inner optimizer.
        factors: Its tensors, with the factors on their settings.
        by_update: Whether multipliers act on its updates: its groups are then not split.

    Returns:
        The line; empty if the optimizer takes all of them.
    """
    by_tensor = {id(tensor): of_tensor for tensor, of_tensor in factors}
    decay = WeightDecay(optimizer)
    missing: dict[str, str] = {}
    for group in optimizer.param_groups:
        kind = decay.kind(group)
        wanted = [by_tensor[id(p)] for p in group["params"] if id(p) in by_tensor]
        if any(f.epsilon != 1.0 for f in wanted) and not _is_number(group.get("eps")):
            missing["epsilon"] = _NO_SETTING
        if any(map(_changes_betas, wanted)) and not _are_betas(group.get("betas")):
            missing["betas"] = _NO_SETTING
        if any(f.weight_decay != 1.0 for f in wanted) and kind is DecayKind.OTHER:
            missing["weight decay"] = _NORMALIZED
        if by_update:
            missing |= dict.fromkeys(_changed(wanted, kind), _BY_UPDATE)
    if not missing:
        return ""
    reasons = dict.fromkeys(missing.values())
    parts = [
        f"{_listed([name for name, why in missing.items() if why == reason])} ({reason})"
        for reason in reasons
    ]
    return (
        f"{type(optimizer).__name__} does not take the recipe's factors on {'; '.join(parts)}; it "
        "steps with its own"
    )


_NO_SETTING = "its groups have no such setting, or one that is not a number"
_NORMALIZED = "it normalizes the decay with the gradient, or is not known; use one such as AdamW"
_BY_UPDATE = "multipliers act on its updates, so that its groups are not split"


def _changed(factors: Sequence[SettingFactors], decay: DecayKind) -> Iterator[str]:
    """Yield the names of the settings that factors change, besides learning rates."""
    if any(f.epsilon != 1.0 for f in factors):
        yield "epsilon"
    if any(map(_changes_betas, factors)):
        yield "betas"
    if any(f.weight_decay != 1.0 for f in factors) and decay is not DecayKind.NONE:
        yield "weight decay"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _changes_betas(factors: SettingFactors) -> bool:
    return factors.one_minus_beta1 != 1.0 or factors.one_minus_beta2 != 1.0


def _scaled_beta(beta: Any, scale: float) -> Any:
    """Return the beta whose distance from 1 is ``scale`` times as large, in [0, 1]."""
    scaled = 1 - (1 - beta) * scale
    return scaled.clamp(0.0, _LARGEST_BETA) if isinstance(scaled, Tensor) else max(scaled, 0.0)


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_betas(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))

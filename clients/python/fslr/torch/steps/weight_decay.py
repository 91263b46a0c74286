r"""How PyTorch optimizers apply weight decay, and what a multiplier does to it.

A step at the learning rate :math:`\eta` and the weight decay :math:`\lambda` takes
:math:`\eta \lambda w` away from the weights :math:`w`, besides what the gradient asks for. A
multiplier on :math:`\eta` scales both. The decay stays what the settings say if the step is taken
with :math:`\lambda / m`:

- *Decoupled* decay (AdamW, Muon, Lion; Loshchilov and Hutter, arXiv 1711.05101): exactly.
- *L2* in SGD, where :math:`\lambda w` is added to the gradient: exactly without momentum. With
  momentum, what the momentum has from before a change of the multiplier still has the old one.
- L2 inside an adaptive optimizer, such as Adam: :math:`\lambda w` is normalized together with the
  gradient, so there is no decay that could be kept, and nothing is changed.
"""

from __future__ import annotations

import enum
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_DECOUPLED = frozenset((
    *("AdamW", "AdamW8bit", "AdamW32bit", "AdamW4bit", "AdamWFp8"),
    *("PagedAdamW", "PagedAdamW8bit", "PagedAdamW32bit"),
    *("Lion", "Lion8bit", "Lion32bit", "PagedLion", "PagedLion8bit", "PagedLion32bit"),
    *("Muon", "MuonWithAuxAdam", "SingleDeviceMuon", "SingleDeviceMuonWithAuxAdam"),
))
"""Names of optimizers with decoupled decay: PyTorch, torchao, bitsandbytes, Muon, Lion."""
_MAX_DECAY = 1e30  # also in float32, in which fused steps compute


class DecayKind(enum.Enum):
    """How an optimizer applies the weight decay of a group."""

    NONE = "none"
    DECOUPLED = "decoupled"
    L2 = "L2"
    """Added to a gradient that the step is proportional to."""
    OTHER = "other"
    """Added to a gradient that the optimizer normalizes, or unknown."""

    @property
    def can_be_kept(self) -> bool:
        """Whether the decay can stay what the settings say under a multiplier."""
        return self in {DecayKind.DECOUPLED, DecayKind.L2}


class WeightDecay:
    """How an optimizer applies weight decay.

    Args:
        optimizer: The optimizer. One that shares the list of groups of another one is that one.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = _stepping(optimizer)
        self._kind = _kind(self._optimizer)

    def kind(self, group: dict[str, Any]) -> DecayKind:
        """Return how the weight decay of a group is applied.

        Args:
            group: One of the optimizer's groups.
        """
        decay = group.get("weight_decay")
        if decay is None:
            return DecayKind.NONE
        try:
            if not float(decay) > 0:
                return DecayKind.NONE
            if self._kind is DecayKind.L2 and float(group["momentum"]) >= 1:
                return DecayKind.OTHER  # the momentum grows without bound
        except (TypeError, ValueError):  # a schedule, or a decay for each tensor
            return DecayKind.OTHER
        if self._kind is None:
            is_decoupled = group.get("decoupled_weight_decay", False)
            return DecayKind.DECOUPLED if is_decoupled else DecayKind.OTHER
        return self._kind

    def of_step(self, group: dict[str, Any]) -> float:
        r"""Return which part of a group's weights a step takes away: :math:`\eta \lambda`.

        For L2 in SGD with momentum it is the part that the decay of all earlier steps adds up to,
        while weights and learning rate change little. Before the first step there are none. Call it
        before the step.

        Args:
            group: One of the optimizer's groups, as its user sees it.

        Returns:
            The part, >= 0; 0 if the decay cannot be kept apart from the rest of the update.
        """
        kind = self.kind(group)
        if kind is not DecayKind.DECOUPLED and kind is not DecayKind.L2:
            return 0.0
        decay = float(group["lr"]) * float(group["weight_decay"])
        if kind is DecayKind.L2 and group["momentum"]:
            momentum, undamped = float(group["momentum"]), 1 - float(group["dampening"])
            of_all_steps = undamped / (1 - momentum) if self._has_momentum(group) else 1.0
            decay *= 1 + momentum * of_all_steps if group["nesterov"] else of_all_steps
        return decay if math.isfinite(decay) else 0.0

    def _has_momentum(self, group: dict[str, Any]) -> bool:
        """Return whether an earlier step left momentum; SGD's first step does not damp it."""
        state = self._optimizer.state
        return any("momentum_buffer" in state.get(p, ()) for p in group["params"])

    def under(self, group: dict[str, Any], multiplier: float) -> float | Tensor | None:
        """Return the weight decay with which a group's decay stays the same under a multiplier.

        Args:
            group: One of the optimizer's groups, as its user sees it.
            multiplier: The multiplier on its learning rate, > 0.

        Returns:
            The weight decay; None if the decay cannot be kept, or there is none.
        """
        if not self.kind(group).can_be_kept:
            return None
        decay: float | Tensor = group["weight_decay"]
        if isinstance(decay, Tensor):
            return (decay / multiplier).clamp(max=_MAX_DECAY)
        return min(decay / multiplier, _MAX_DECAY)

    def tensors(self, *kinds: DecayKind) -> int:
        """Return the number of tensors whose weight decay is applied in one of some ways."""
        groups = self._optimizer.param_groups
        return sum(len(group["params"]) for group in groups if self.kind(group) in kinds)

    @property
    def name(self) -> str:
        """The name of the optimizer that makes the steps."""
        return type(self._optimizer).__name__


def scaled_hint(decays: Sequence[WeightDecay]) -> str:
    """Return a hint that multipliers scale the decay of optimizers; empty if no tensor decays."""
    kinds = DecayKind.DECOUPLED, DecayKind.L2, DecayKind.OTHER
    tensors = sum(decay.tensors(*kinds) for decay in decays)
    if not tensors:
        return ""
    return (
        f"multipliers scale the weight decay of {tensors} tensor(s) together with the rest of "
        "their update, as the policy says; set weight_decay to independent in the policy to "
        "keep the decay of a step what the optimizer's settings say"
    )


def kept_hint(decays: Sequence[WeightDecay]) -> str:
    """Return a hint about decay of optimizers that cannot be kept; empty if there is none."""
    tensors, names = _unknown(decays)
    if not tensors:
        return ""
    return (
        f"multipliers scale the weight decay of {tensors} tensor(s) together with the rest of "
        f"their update: {names} normalizes it with the gradient, or "
        "is not known; use an optimizer with decoupled weight decay, such as AdamW, to keep "
        "the decay of a step what the settings say"
    )


def exclusion_warning(decays: Sequence[WeightDecay]) -> str:
    """Return a warning about decay that cannot be excluded; empty if there is none."""
    tensors, names = _unknown(decays)
    if not tensors:
        return ""
    return (
        f"exclude_weight_decay has no effect on {tensors} tensor(s): "
        f"{names} normalizes their weight decay with the gradient, or "
        "is not known, so their unit rates contain it; use an optimizer with decoupled weight "
        "decay, such as AdamW, or leave the option out"
    )


def _unknown(decays: Sequence[WeightDecay]) -> tuple[int, str]:
    """Return the number of tensors whose decay cannot be told apart, and their optimizers."""
    unknown = [decay for decay in decays if decay.tensors(DecayKind.OTHER)]
    names = " or ".join(dict.fromkeys(decay.name for decay in unknown))
    return sum(decay.tensors(DecayKind.OTHER) for decay in unknown), names


def _stepping(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer that steps: the innermost one that shares the list of groups."""
    for inner in vars(optimizer).values():
        if (
            isinstance(inner, torch.optim.Optimizer)
            and inner is not optimizer
            and inner.param_groups is optimizer.param_groups
        ):
            return _stepping(inner)
    return optimizer


def _kind(optimizer: torch.optim.Optimizer) -> DecayKind | None:
    """Return how an optimizer applies weight decay; None if each of its groups says that.

    A subclass with a step of its own may do anything, so the step decides, and then the name.
    """
    step = _function(type(optimizer))
    if step in map(_function, (torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam)):
        return None
    if step is _function(torch.optim.SGD):
        return DecayKind.L2
    known = [torch.optim.AdamW, torch.optim.Adafactor]  # AdamW may be an Adam with another default
    if (
        type(optimizer).__name__ in _DECOUPLED
        or step in map(_function, known)
        or getattr(optimizer, "adam_w_mode", False)  # of Apex and DeepSpeed
    ):
        return DecayKind.DECOUPLED
    return DecayKind.OTHER


def _function(kind: type[torch.optim.Optimizer]) -> object:
    """Return the function that makes the steps of a class, without PyTorch's decorators."""
    return inspect.unwrap(kind.step)

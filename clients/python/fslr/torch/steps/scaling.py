"""Where multipliers act: on an optimizer's learning rates, or on the updates that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from fslr.errors import AttachError
from fslr.torch.model.groups import has_stepped
from fslr.torch.optimizers import inner_optimizers
from fslr.torch.steps.optimizer_trial import try_out

Scaling = Literal["auto", "learning_rates", "update"]
"""Where multipliers act: on the learning rates during a step, or on the update that it made.

``"auto"``: on the learning rates where that is known to be right, else on the update.
"""

_LINEAR = (
    *("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam"),
    *("RMSprop", "SGD", "SparseAdam"),
)
"""Optimizers of PyTorch whose steps are proportional to the learning rates of their groups."""
_NOT_LINEAR = {
    "ASGD": "they take effect one step late",
    "Adafactor": "its steps have an upper bound that does not depend on them",
}
"""Optimizers of PyTorch whose steps are not, though they may look so at first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the steps of an optimizer are scaled.

    Attributes:
        by_update: Whether its updates are scaled, instead of its learning rates.
        reason: Why, if the user did not ask for it; else empty.
        is_certain: Whether it needs no check during the training.
        is_correctable: Whether a change of the weights after a step lasts.
    """

    by_update: bool
    reason: str = ""
    is_certain: bool = False
    is_correctable: bool = True

    @property
    def needs_checks(self) -> bool:
        """Whether it is to be checked during the training."""
        return not self.is_certain


def choose(optimizer: torch.optim.Optimizer, scaling: Scaling) -> Choice:
    """Return how the steps of an optimizer are to be scaled.

    Args:
        optimizer: The optimizer, as its user passes it.
        scaling: What the user asks for.

    Raises:
        AttachError: What the user asks for is not one of its values, or is known to be wrong for
            this optimizer; or neither way is right.
    """
    if scaling not in get_args(Scaling):
        raise AttachError(
            f"scaling is {scaling!r}; it must be one of {', '.join(get_args(Scaling))}"
        )
    name = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.LBFGS):
        raise AttachError(
            "LBFGS steps along one direction for all parameters, so groups cannot have different "
            "learning rates; use a different optimizer, or observe_only=True"
        )
    if is_linear(optimizer):
        return Choice(by_update=scaling == "update", is_certain=True)
    why_not_learning_rates, why_not_updates, was_possible = _findings(optimizer)
    if scaling == "learning_rates":
        if why_not_learning_rates and was_possible:
            raise AttachError(
                f"multipliers cannot act on the learning rates of {name}: "
                f'{why_not_learning_rates}; use scaling="auto"'
            )
        return Choice(by_update=False, is_correctable=not why_not_updates)
    if scaling == "auto" and not why_not_learning_rates:
        return Choice(by_update=False, is_correctable=not why_not_updates)
    if why_not_updates:
        also = (
            "" if scaling == "update" else f"; nor on its learning rates: {why_not_learning_rates}"
        )
        remedy = (
            "observe_only=True" if also or why_not_learning_rates else 'scaling="learning_rates"'
        )
        raise AttachError(
            f"multipliers cannot act on the updates of {name}: {why_not_updates}{also}; use "
            f"{remedy}, or a different optimizer"
        )
    return Choice(by_update=True, reason="" if scaling == "update" else why_not_learning_rates)


def on_updates(optimizer: torch.optim.Optimizer, reason: str) -> str:
    """Return the line that says that multipliers act on the updates of an optimizer.

    Args:
        optimizer: The optimizer.
        reason: Why they do not act on its learning rates.
    """
    return (
        f"multipliers act on the updates of {type(optimizer).__name__}, not on its learning rates: "
        f"{reason}"
    )


def is_linear(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the steps of an optimizer are known to be proportional to learning rates."""
    kind = type(optimizer)
    return any(kind is getattr(torch.optim, name, None) for name in _LINEAR) and inner_optimizers(
        optimizer
    ) == [optimizer]


def _findings(optimizer: torch.optim.Optimizer) -> tuple[str, str, bool]:
    """Return why learning rates and updates cannot be scaled, and whether it was tried out."""
    for inner in inner_optimizers(optimizer):
        for name, reason in _NOT_LINEAR.items():
            if isinstance(inner, getattr(torch.optim, name, ())):
                return reason, "", True
    # Momentum and averages of earlier steps move the weights at any learning rate. An optimizer
    # that is resumed was tried out as a new one, before its first step.
    has_begun = any(map(has_stepped, inner_optimizers(optimizer)))
    trial = try_out(optimizer, is_training=has_begun)
    follows = has_begun and trial.was_possible and not trial.have_no_effect
    return "" if follows else trial.learning_rates, trial.updates, trial.was_possible

"""The optimizers of the transfer cases, each built from parameters with learning rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args, overload

import torch
from torch import nn

OptimizerName = Literal["Adam", "AdamW", "SGD", "Adagrad", "Muon"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
_MOMENTUM = 0.9


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices inside of blocks, AdamW for the rest, as Muon's users combine them.

    Embeddings, head, biases and norms go to AdamW. Muon's updates have AdamW's size
    (``match_rms_adamw``), so that both go with one learning rate.

    Args:
        groups: Parameter groups; those with ``"muon": True`` go to Muon.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "muon": False})
        first = nn.Parameter(torch.zeros(1, 1))
        # Stand-ins: a step gives them the groups in force, and their states go by parameter.
        self._parts: dict[bool, torch.optim.Optimizer] = {
            True: torch.optim.Muon([first], weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            False: torch.optim.AdamW([first], weight_decay=0.0),
        }

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step with the groups and learning rates in force.

        Args:
            closure: Computes the loss anew, with gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for muon, optimizer in self._parts.items():
            own = [group for group in self.param_groups if group["muon"] is muon]
            optimizer.param_groups = [{**optimizer.defaults, **group} for group in own]
            if own:
                optimizer.step()
        return loss


def build_optimizer(
    name: OptimizerName, model: nn.Module, learning_rate: float, factors: dict[str, float]
) -> torch.optim.Optimizer:
    """Build an optimizer for a model's trainable parameters.

    Args:
        name: Which.
        model: The model.
        learning_rate: The learning rate, absolute.
        factors: Factors on it by parameter name; those left out have 1.
    """
    by_kind: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            muon = name == "Muon" and parameter.ndim == 2 and "blocks." in parameter_name
            kind = (learning_rate * factors.get(parameter_name, 1.0), muon)
            by_kind.setdefault(kind, []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": rate, **({"muon": muon} if name == "Muon" else {})}
        for (rate, muon), parameters in by_kind.items()
    ]
    if name == "Muon":
        return MuonWithAdamW(groups)
    if name == "SGD":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=_MOMENTUM)
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "Adam": torch.optim.Adam,
        "AdamW": torch.optim.AdamW,
        "Adagrad": torch.optim.Adagrad,
    }
    return kinds[name](groups, lr=learning_rate)

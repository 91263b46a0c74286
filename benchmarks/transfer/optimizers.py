"""The optimizers of the transfer cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args, overload

import torch
from torch import nn

from benchmarks.transfer.parametrization import Factors

OptimizerName = Literal["Adam", "AdamW", "SGD", "Adagrad", "Muon"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
_MOMENTUM = 0.9
_EPSILON, _DECAY = 1e-8, 0.01  # PyTorch's defaults


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices in blocks and AdamW for all other parameters, as is usual.

    Embeddings, head, biases and norms use AdamW. Muon's updates have the size of AdamW's
    (``match_rms_adamw``), so that both use one learning rate.

    Args:
        groups: Parameter groups; those with ``"muon": True`` use Muon.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "muon": False})
        first = nn.Parameter(torch.zeros(1, 1))
        # Built with a stand-in parameter; each step passes them the groups in force. Their state
        # is kept by parameter.
        self._parts: dict[bool, torch.optim.Optimizer] = {
            True: torch.optim.Muon([first], weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            False: torch.optim.AdamW([first], weight_decay=0.0, fused=True),
        }

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step with the groups and learning rates in force.

        Args:
            closure: Computes the loss and its gradients again.
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
    name: OptimizerName,
    model: nn.Module,
    learning_rate: float,
    factors: Mapping[str, Factors],
    weight_decay: float | None = None,
) -> torch.optim.Optimizer:
    """Build an optimizer for a model's trainable parameters.

    Args:
        name: The optimizer.
        model: The model.
        learning_rate: The learning rate.
        factors: Factors by parameter name on it, and on epsilon and weight decay for Adam and
            AdamW; parameters without any have factor 1.
        weight_decay: Coefficient of decoupled weight decay, for AdamW; None for PyTorch's default.

    Raises:
        ValueError: The optimizer has no decoupled weight decay.
    """
    if weight_decay is not None and name != "AdamW":
        raise ValueError(f"{name} has no decoupled weight decay of {weight_decay:g}; use AdamW")
    settings: dict[str, float] = {"eps": _EPSILON} if name in {"Adam", "AdamW"} else {}
    if name == "AdamW":
        settings["weight_decay"] = _DECAY if weight_decay is None else weight_decay
    by_group: dict[tuple[Factors, bool], list[nn.Parameter]] = {}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            muon = name == "Muon" and parameter.ndim == 2 and "blocks." in parameter_name
            factor = replace(factors.get(parameter_name, Factors()), init=1.0)
            by_group.setdefault((factor, muon), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": learning_rate * factor.learning_rate,
            **({"eps": settings["eps"] * factor.epsilon} if "eps" in settings else {}),
            **(
                {"weight_decay": settings["weight_decay"] * factor.weight_decay}
                if "weight_decay" in settings
                else {}
            ),
            **({"muon": muon} if name == "Muon" else {}),
        }
        for (factor, muon), parameters in by_group.items()
    ]
    if name == "Muon":
        return MuonWithAdamW(groups)
    if name == "SGD":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=_MOMENTUM, fused=True)
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "Adam": torch.optim.Adam,
        "AdamW": torch.optim.AdamW,
        "Adagrad": torch.optim.Adagrad,
    }
    # Fused, since a loop over many small tensors takes up to a fifth of a step.
    return kinds[name](groups, lr=learning_rate, fused=True)

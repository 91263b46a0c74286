"""Parametrisations: initialisations and learning rates that follow from a model's shape.

muP (Yang et al., Tensor Programs V, arXiv 2203.03466, table 8) for width, and depth-muP (Yang et
al., Tensor Programs VI, arXiv 2310.02244) for depth, written as factors on PyTorch's own
initialisation and on the learning rate of each tensor, relative to a base model. The base itself is
unchanged, so that all methods share its sweep. No forward pass is changed: a multiplier on a branch
is folded into the last layer of the branch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Family = Literal["adam", "sgd"]


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors on one tensor of the big model.

    Attributes:
        init: Factor on the initial values that PyTorch gives it.
        learning_rate: Factor on its learning rate.
    """

    init: float = 1.0
    learning_rate: float = 1.0


Rule = Callable[[nn.Module, nn.Module, Family], dict[str, Factors]]
"""Maps (big model, base model, optimizer family) to the factors of the big one's tensors."""


def standard(big: nn.Module, _base: nn.Module, _family: Family) -> dict[str, Factors]:
    """Change nothing: one learning rate for all tensors."""
    return {name: Factors() for name, _ in big.named_parameters()}


def mup(big: nn.Module, base: nn.Module, family: Family) -> dict[str, Factors]:
    """Scale with width.

    PyTorch's layers start with a variance of ``1 / fan_in``, which is right for input and hidden
    layers; an output layer (its fan-in grows, its fan-out does not) starts smaller. Heads of
    attention must keep their width. Blocks beyond those of the base take the factors of its last.

    Args:
        big: The model to train.
        base: The model that the learning rate was tuned on.
        family: ``adam`` if the optimizer's step does not depend on the size of the gradient, else
            ``sgd``.

    Raises:
        ValueError: A layer grows in a way that no rule here covers.
    """
    base_modules = dict(base.named_modules())
    found: dict[str, Factors] = {}
    for name, module in big.named_modules():
        for key, factors in _module_factors(
            module, _counterpart(name, base_modules), family
        ).items():
            found[f"{name}.{key}" if name else key] = factors
    return found


def depth_mup(big: nn.Module, base: nn.Module, family: Family) -> dict[str, Factors]:
    """Scale with depth ``L``: branches, and Adam's learning rates in them, by ``1 / sqrt(L)``.

    Args:
        big: The model to train; its residual blocks are in ``blocks``.
        base: The model that the learning rate was tuned on.
        family: As in :func:`mup`. With SGD, learning rates of weights are unchanged.
    """
    ratio = (_depth(base) / _depth(big)) ** 0.5
    learning_rate = ratio if family == "adam" else 1.0
    last = {f"{name}.weight" for name in _last_of_branches(big)}
    last |= {f"{name}.bias" for name in _last_of_branches(big)}
    found: dict[str, Factors] = {}
    for name, parameter in big.named_parameters():
        inside = name.startswith("blocks.") and (parameter.dim() > 1 or name in last)
        if not inside:
            found[name] = Factors()
        elif name in last:
            # f = ratio * W x becomes f = W' x with W' = ratio * W. The step of W' is scaled by the
            # ratio once for Adam, whose step does not shrink with the gradient, and twice for SGD.
            folded = ratio if family == "adam" else ratio**2
            found[name] = Factors(init=ratio, learning_rate=learning_rate * folded)
        else:
            found[name] = Factors(learning_rate=learning_rate)
    return found


def width_and_depth(big: nn.Module, base: nn.Module, family: Family) -> dict[str, Factors]:
    """Scale with width and depth: the product of the factors of both rules."""
    wide, deep = mup(big, base, family), depth_mup(big, base, family)
    return {
        name: Factors(
            wide[name].init * deep[name].init,
            wide[name].learning_rate * deep[name].learning_rate,
        )
        for name in wide
    }


@torch.no_grad()
def initialise(model: nn.Module, factors: dict[str, Factors]) -> None:
    """Multiply the initial values of a model in place.

    Args:
        model: The big model, as PyTorch initialised it.
        factors: The factors of each parameter, by name.
    """
    for name, parameter in model.named_parameters():
        parameter.mul_(factors[name].init)


def _counterpart(name: str, base_modules: dict[str, nn.Module]) -> nn.Module:
    if name in base_modules:
        return base_modules[name]
    parts = name.split(".")
    deepest = max(int(other.split(".")[1]) for other in base_modules if other.startswith("blocks."))
    return base_modules[".".join([parts[0], str(deepest), *parts[2:]])]


def _module_factors(module: nn.Module, base: nn.Module, family: Family) -> dict[str, Factors]:
    """Return the factors of a module's own parameters."""
    match module, base:
        case nn.Linear(), nn.Linear():
            grown_in = module.in_features / base.in_features
            grown_out = module.out_features / base.out_features
        case ((nn.Conv1d() | nn.Conv2d()), (nn.Conv1d() | nn.Conv2d())):
            grown_in = module.in_channels / base.in_channels
            grown_out = module.out_channels / base.out_channels
        case _:
            return _vector_factors(module, base, family)
    weight = _weight_factors(grown_in, grown_out, family)
    if module.bias is None:
        return {"weight": weight}
    # PyTorch initialises a bias like a row of the weight, so it shrinks with the fan-in; in muP it
    # must not.
    return {
        "weight": weight,
        "bias": Factors(grown_in**0.5, grown_out if family == "sgd" else 1.0),
    }


def _weight_factors(grown_in: float, grown_out: float, family: Family) -> Factors:
    """Return the factors of a matrix, or of a convolution's filters."""
    is_output = grown_in != 1 and grown_out == 1
    init = grown_in**-0.5 if is_output else 1.0
    if family == "adam":
        return Factors(init, 1 / grown_in)
    if is_output:
        return Factors(init, 1 / grown_in)
    return Factors(init, grown_out / grown_in)


def _vector_factors(module: nn.Module, base: nn.Module, family: Family) -> dict[str, Factors]:
    """Return the factors of norms, embeddings and vectors, which act on each channel separately."""
    found: dict[str, Factors] = {}
    base_parameters = dict(base.named_parameters(recurse=False))
    for key, parameter in module.named_parameters(recurse=False):
        grown = [a / b for a, b in zip(parameter.shape, base_parameters[key].shape, strict=True)]
        if any(ratio != 1 for ratio in grown[:-1]):
            raise ValueError(
                f"{type(module).__name__}.{key} grows from {tuple(base_parameters[key].shape)} to "
                f"{tuple(parameter.shape)}, which no rule of muP here covers; add one"
            )
        found[key] = Factors(1.0, grown[-1] if family == "sgd" else 1.0)
    return found


def _depth(model: nn.Module) -> int:
    return len(list(model.get_submodule("blocks").children()))


def _last_of_branches(model: nn.Module) -> list[str]:
    """Return the names of the layers whose outputs are added to the residual stream."""
    found = []
    for name, module in model.named_modules():
        if not name.startswith("blocks.") or not isinstance(module, nn.Linear):
            continue
        parent = model.get_submodule(name.rpartition(".")[0])
        own = name.rpartition(".")[2]
        # The output layer of attention, the second layer of a feed-forward block, or the only layer
        # of a branch.
        if own in {"out", "down"} or isinstance(parent, nn.Sequential):
            found.append(name)
    return found

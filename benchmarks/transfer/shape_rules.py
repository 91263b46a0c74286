"""Parametrizations as model code: factors that follow from the shapes of a model and its base.

muP (Yang et al., Tensor Programs V, arXiv 2203.03466, table 8) for width, depth-muP (Yang et al.,
Tensor Programs VI, arXiv 2310.02244) and CompleteP (Dey et al., arXiv 2505.01618, table 1) for
depth, written as factors on PyTorch's own initialization and on the optimizer's settings for each
tensor, relative to a base model. The base itself is unchanged, so that all methods share its sweep.
No forward pass is changed: a multiplier on a branch is folded into the last layer of the branch.

These rules read modules, not layouts, so that they are independent of ``advisor.recipes``, which
has the same parametrizations as tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from benchmarks.transfer.models import build_task
from benchmarks.transfer.parametrization import Factors
from benchmarks.transfer.settings import Setting

Family = Literal["adam", "sgd"]


Rule = Callable[[nn.Module, nn.Module, Family], dict[str, Factors]]
"""Maps (big model, base model, optimizer family) to the factors of the big one's tensors."""


def standard(big: nn.Module, _base: nn.Module, _family: Family) -> dict[str, Factors]:
    """Change nothing: one learning rate for all tensors."""
    return {name: Factors() for name, _ in big.named_parameters()}


def mup(big: nn.Module, base: nn.Module, family: Family) -> dict[str, Factors]:
    """Scale with width.

    PyTorch's layers start with a variance of ``1 / fan_in``, which is right for input and hidden
    layers; an output layer (its fan-in grows, its fan-out does not) starts smaller. Heads of
    attention must keep their width. Blocks and experts beyond those of the base take the factors of
    its last ones.

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
        counterpart = _counterpart(name, base_modules)
        of_module = _module_factors(module, counterpart, family, is_router=_is_router(name))
        found |= {f"{name}.{key}" if name else key: of for key, of in of_module.items()}
    return found


def depth_mup(big: nn.Module, base: nn.Module, family: Family) -> dict[str, Factors]:
    """Scale with depth ``L``: branches, and Adam's learning rates in them, by ``1 / sqrt(L)``.

    The source says nothing of biases and norms; their learning rates follow those of the matrices,
    as in CompleteP's table with alpha = 0.5.

    Args:
        big: The model to train; its residual blocks are in ``blocks``.
        base: The model that the learning rate was tuned on.
        family: As in :func:`mup`. With SGD, learning rates of weights are unchanged.
    """
    branch = (_depth(base) / _depth(big)) ** 0.5
    in_blocks = Factors(learning_rate=branch if family == "adam" else 1.0)
    last = _last_of_branches(big)
    found: dict[str, Factors] = {}
    for name, _ in big.named_parameters():
        found[name] = in_blocks if name.startswith("blocks.") else Factors()
        if name in last:
            found[name] = folded(found[name], branch, family)
    return found


def width_and_depth(big: nn.Module, base: nn.Module, family: Family) -> dict[str, Factors]:
    """Scale with width and depth: the product of the factors of both rules."""
    wide, deep = mup(big, base, family), depth_mup(big, base, family)
    return {
        name: Factors(
            factors.init * deep[name].init,
            factors.learning_rate * deep[name].learning_rate,
            factors.epsilon * deep[name].epsilon,
            factors.weight_decay * deep[name].weight_decay,
        )
        for name, factors in wide.items()
    }


def completep(big: nn.Module, base: nn.Module, family: Family) -> dict[str, Factors]:
    """Scale width as muP does, and branches by ``1 / L``; for Adam and AdamW only.

    Adam's learning rates do not depend on the depth then, apart from what is folded into the last
    layer of each branch. Epsilon follows the size of the gradients. Weight decay of matrices in
    blocks moves them as far per step as in the base.

    Args:
        big: The model to train; its residual blocks are in ``blocks``.
        base: The model that the learning rate was tuned on.
        family: As in :func:`mup`.

    Raises:
        ValueError: The family is not ``adam``, or a layer grows in a way that no rule here covers.
    """
    if family != "adam":
        raise ValueError(f"CompleteP is published for Adam and AdamW, not for {family}; use mup")
    branch, width = _depth(base) / _depth(big), _width(base) / _width(big)
    last = _last_of_branches(big)
    found = {}
    for name, factors in mup(big, base, family).items():
        found[name] = factors
        if name.startswith("blocks."):
            # The source says nothing of routers.
            is_router = _is_router(name.rpartition(".")[0])
            found[name] = replace(factors, epsilon=1.0 if is_router else width * branch)
        if name in last:
            found[name] = folded(found[name], branch, family)
    return found


def folded(factors: Factors, multiplier: float, family: Family) -> Factors:
    """Return the factors of a layer that a multiplier is folded into.

    ``f = a W x`` becomes ``f = W' x`` with ``W' = a W``. The gradient of ``W'`` is ``1 / a`` of
    that of ``W``, so Adam's step of ``W'`` needs the learning rate times ``a`` and epsilon divided
    by it, and SGD's the learning rate times ``a`` squared. Decay shrinks both alike if the product
    of learning rate and coefficient is unchanged.

    Args:
        factors: The factors of ``W``.
        multiplier: The multiplier ``a``.
        family: As in :func:`mup`.
    """
    step = multiplier if family == "adam" else multiplier**2
    return Factors(
        factors.init * multiplier,
        factors.learning_rate * step,
        factors.epsilon / multiplier if family == "adam" else factors.epsilon,
        factors.weight_decay / step,
    )


RuleName = Literal["mup", "depth_mup", "completep"]
RULES: dict[RuleName, Rule] = {"mup": mup, "depth_mup": width_and_depth, "completep": completep}


@dataclass(frozen=True, slots=True)
class ByShape:
    """A parametrization that follows from the shapes of base and big model.

    Attributes:
        rule: Its name.
        family: The optimizer's family.
    """

    rule: RuleName
    family: Family = "adam"

    @property
    def name(self) -> str:
        """Name in tables and JSON."""
        return self.rule

    def factors(self, model: nn.Module, base: Setting) -> dict[str, Factors]:
        """Return the factors of a model's tensors.

        Args:
            model: The model.
            base: The setting where the learning rate was tuned.
        """
        with torch.random.fork_rng(devices=[]):
            return RULES[self.rule](model, build_task(base).model, self.family)

    def prepare(self, model: nn.Module, setting: Setting, base: Setting) -> dict[str, Factors]:  # noqa: ARG002
        """Scale the initial weights in place and return factors on the optimizer's settings.

        Args:
            model: The model.
            setting: Its setting; not used.
            base: The setting where the learning rate was tuned.
        """
        found = self.factors(model, base)
        initialize(model, found)
        return found


@torch.no_grad()
def initialize(model: nn.Module, factors: dict[str, Factors]) -> None:
    """Multiply the initial values of a model in place.

    Args:
        model: The big model, as PyTorch initialized it.
        factors: The factors of each parameter, by name.
    """
    for name, parameter in model.named_parameters():
        parameter.mul_(factors[name].init)


def _counterpart(name: str, base_modules: dict[str, nn.Module]) -> nn.Module:
    """Return the module of the base; blocks and experts beyond those of the base have its last."""
    path = ""
    for part in name.split(".") if name else ():
        own = f"{path}.{part}".lstrip(".")
        if own not in base_modules and part.isdecimal():
            siblings = len(list(base_modules[path].children()))
            own = f"{path}.{siblings - 1}"
        path = own
    return base_modules[path]


def _is_router(name: str) -> bool:
    """Return whether a module chooses experts; its outputs are few, as those of an output layer."""
    return name.rpartition(".")[2] == "router"


def _module_factors(
    module: nn.Module, base: nn.Module, family: Family, *, is_router: bool
) -> dict[str, Factors]:
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
    is_output = grown_in != 1 and (grown_out == 1 or is_router)
    weight = _weight_factors(grown_in, grown_out, family, is_output=is_output)
    if module.bias is None:
        return {"weight": weight}
    # PyTorch initializes a bias like a row of the weight, so it shrinks with the fan-in; in muP it
    # must not.
    return {
        "weight": weight,
        "bias": _vector_of(grown_out, family, init=grown_in**0.5),
    }


def _weight_factors(
    grown_in: float, grown_out: float, family: Family, *, is_output: bool
) -> Factors:
    """Return the factors of a matrix, or of a convolution's filters.

    The product of learning rate and weight decay is that of the base.
    """
    init = grown_in**-0.5 if is_output else 1.0
    learning_rate = 1 / grown_in if family == "adam" or is_output else grown_out / grown_in
    # PyTorch's output layer already starts smaller by the root of its fan-in. muP's multiplier of
    # 1 / fan_in is folded into it.
    epsilon = grown_in if is_output and family == "adam" else 1.0
    return Factors(init, learning_rate, epsilon, 1 / learning_rate)


def _vector_factors(module: nn.Module, base: nn.Module, family: Family) -> dict[str, Factors]:
    """Return the factors of norms, embeddings and vectors, which act on each channel separately."""
    found: dict[str, Factors] = {}
    base_parameters = dict(base.named_parameters(recurse=False))
    for key, parameter in module.named_parameters(recurse=False):
        grown = [a / b for a, b in zip(parameter.shape, base_parameters[key].shape, strict=True)]
        # An embedding may have more tokens or positions.
        if not isinstance(module, nn.Embedding) and any(ratio != 1 for ratio in grown[:-1]):
            raise ValueError(
                f"{type(module).__name__}.{key} grows from {tuple(base_parameters[key].shape)} to "
                f"{tuple(parameter.shape)}, which no rule of muP here covers; add one"
            )
        found[key] = _vector_of(grown[-1], family)
    return found


def _vector_of(grown: float, family: Family, init: float = 1.0) -> Factors:
    learning_rate = grown if family == "sgd" else 1.0
    return Factors(init, learning_rate, weight_decay=1 / learning_rate)


def _depth(model: nn.Module) -> int:
    """Return the number of blocks; 1 for a model without any."""
    blocks = dict(model.named_children()).get("blocks")
    return 1 if blocks is None else len(list(blocks.children()))


def _width(model: nn.Module) -> int:
    """Return the fan-in of the output layer."""
    *_, head = (module for module in model.modules() if isinstance(module, nn.Linear))
    return head.in_features


def _last_of_branches(model: nn.Module) -> set[str]:
    """Return the parameters of the layers whose outputs are added to the residual stream."""
    found = set()
    for name, module in model.named_modules():
        if not name.startswith("blocks.") or not isinstance(module, nn.Linear):
            continue
        parent = model.get_submodule(name.rpartition(".")[0])
        own = name.rpartition(".")[2]
        # The output layer of attention, the second layer of a feed-forward block, or the only layer
        # of a branch.
        if own in {"out", "down"} or isinstance(parent, nn.Sequential):
            found |= {f"{name}.{key}" for key, _ in module.named_parameters()}
    return found

"""Local maps: what a module's output would change by if its parameters changed, layer by layer.

A module that is linear in its own parameters maps an update ``U`` of them to an output change
``y(U; x)`` that depends on its input ``x`` alone. Each rule below computes that change for one
layer type, one tensor a parameter, of a shape that broadcasts over the module's output. A rule
knows nothing of probes or rates; what is computed with the change is the estimators' business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

UpdateOf = Callable[[Tensor | None], Tensor | None]
"""Gives a parameter's unit update, or None for a parameter that is not measured."""

LocalChange = list[tuple[Tensor, Tensor]]
"""Pairs of a parameter and the output change its unit update causes."""

Rule = Callable[[Any, tuple[Any, ...], UpdateOf], LocalChange]
"""A layer type's rule: module, positional inputs of the call, unit updates -> local change."""


def _linear(module: nn.Linear, inputs: tuple[Any, ...], update_of: UpdateOf) -> LocalChange:
    change: LocalChange = []
    if (weight := update_of(module.weight)) is not None:
        change.append((module.weight, functional.linear(inputs[0], weight)))
    if (bias := update_of(module.bias)) is not None:
        change.append((module.bias, bias))
    return change


def _embedding(module: nn.Embedding, inputs: tuple[Any, ...], update_of: UpdateOf) -> LocalChange:
    if (weight := update_of(module.weight)) is None:
        return []
    return [(module.weight, functional.embedding(inputs[0], weight))]


def _layer_norm(module: nn.LayerNorm, inputs: tuple[Any, ...], update_of: UpdateOf) -> LocalChange:
    change: LocalChange = []
    if (weight := update_of(module.weight)) is not None:
        normalized = functional.layer_norm(
            inputs[0], module.normalized_shape, None, None, module.eps
        )
        change.append((module.weight, normalized * weight))
    if (bias := update_of(module.bias)) is not None:
        change.append((module.bias, bias))
    return change


# Keyed by the forward function, not by the class: a subclass that keeps forward keeps the rule, and
# one that overrides it may compute anything.
_RULES: dict[object, Rule] = {
    nn.Linear.forward: _linear,
    nn.Embedding.forward: _embedding,
    nn.LayerNorm.forward: _layer_norm,
}


def rule_for(module: nn.Module) -> Rule | None:
    """Return the local-map rule for a module, or None where there is none."""
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return None  # its forward renormalises the weights in place
    return _RULES.get(type(module).forward)


def supported_layers() -> list[str]:
    """Return the names of the layer types that have a rule, sorted."""
    return sorted(str(getattr(key, "__qualname__", key)).split(".")[0] for key in _RULES)

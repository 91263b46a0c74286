"""Names of optimizers of optax, from what their states keep."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp

from fslr.jax.names import named_leaves

_NAMES = {
    "ScaleByAmsgradState": "Adam",
    "ScaleByBeliefState": "AdaBelief",
    "ScaleByRmsState": "RMSprop",
    "ScaleByRmsWithCountState": "RMSprop",
    "ScaleByRStdDevState": "RMSprop",
    "ScaleByRStdDevWithCountState": "RMSprop",
    "ScaleByRssState": "Adagrad",
    "FactoredState": "Adafactor",
    "TraceState": "SGD",
    "MuonState": "Muon",
    "SophiaState": "Sophia",
}
_SCALING = re.compile(r"ScaleBy(\w+)State")
_OTHERS = frozenset({"ScaleByScheduleState", "ScaleByBacktrackingLinesearchState"})
_PLAIN = "SGD"  # keeps nothing


def optimizer_name(opt_state: Any) -> str:
    """Return the name of an optimizer, such as ``Adam``.

    If there are several, it is that of most weights. One whose state says nothing is plain
    gradient descent, SGD.

    Args:
        opt_state: Its state.
    """
    sizes = Counter[str]()
    for node in _scaling_states(opt_state):
        # A state may keep several numbers for each weight.
        sizes[_name_of(node)] += max(map(_size_of, node), default=0)
    return sizes.most_common(1)[0][0] if sizes else _PLAIN


def optimizers_of_leaves(opt_state: Any, names: list[str]) -> dict[str, str]:
    """Return the optimizer of each leaf that is not updated by the one of most weights.

    Args:
        opt_state: The state of an optimizer, perhaps of ``optax.partition``.
        names: Names of the leaves.
    """
    usual = optimizer_name(opt_state)
    found: dict[str, str] = {}
    for node in _scaling_states(opt_state):
        for tree in node:
            kept = _names_in(tree)
            found.update({name: _name_of(node) for name in names if name in kept})
    others = {name: found.get(name, _PLAIN) for name in names} if found else {}
    return {name: optimizer for name, optimizer in others.items() if optimizer != usual}


def _scaling_states(opt_state: Any) -> list[Any]:
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: _name_of(node) != "")
    return [leaf for leaf in leaves if _name_of(leaf)]


def _name_of(node: object) -> str:
    """Return the name of the optimizer that keeps a state; empty: it is not one of an optimizer."""
    name = type(node).__name__
    if name in _OTHERS:
        return ""
    scaling = _SCALING.fullmatch(name)
    return _NAMES.get(name) or (scaling[1] if scaling else "")


def _size_of(tree: Any) -> int:
    return sum(int(jnp.size(leaf)) for leaf in jax.tree.leaves(tree))


def _names_in(tree: Any) -> frozenset[str]:
    try:
        return frozenset(named_leaves(tree))
    except ValueError:
        return frozenset()

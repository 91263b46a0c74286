"""Finds low-rank adapters by shape and use, whatever their factors are called.

In JAX, frozen weights are often not among the parameters, so shapes do not tell an adapter from a
narrow layer. A module is an adapter if ``lora`` is in its name or in that of its class, and its
leaves are, apart from vectors, two matrices with the shapes of factors, and at most one matrix of
the layer that they adapt. A leaf such as ``a.kernel`` counts as one of the module that holds ``a``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from fslr.jax.kinds import WEIGHTS, Leaf
from fslr.training.adapter_rates import is_low_rank

_Shape = tuple[int, ...]


def adapters_of(leaves: Sequence[Leaf]) -> list[tuple[int, int]]:
    """Return the indices of the factors A and B of each adapter.

    Args:
        leaves: All groups of a model, in layout order.
    """
    modules: dict[tuple[tuple[str, ...], int | None], list[int]] = {}
    for index, leaf in enumerate(leaves):
        if len(leaf.shape) > 1 and _is_lora(leaf):
            modules.setdefault((_module_of(leaf), leaf.layer), []).append(index)
    found = []
    for indices in modules.values():
        pairs = permutations(indices, 2) if len(indices) in {2, 3} else ()
        for a, b in pairs:
            others = [leaves[i].shape for i in indices if i not in {a, b}]
            if _are_factors(leaves[a].shape, leaves[b].shape, others):
                found.append((a, b))
                break
    return found


def _are_factors(a: _Shape, b: _Shape, others: Sequence[_Shape]) -> bool:
    """Return whether two matrices are factors of a change of the others, if there are any."""
    if not others:
        return is_low_rank(a, b)
    (layer,) = others
    return len(layer) == 2 and any(
        is_low_rank(a, b, inputs=inputs, outputs=outputs)
        for inputs, outputs in (layer, layer[::-1])
    )


def _module_of(leaf: Leaf) -> tuple[str, ...]:
    return leaf.path[:-2] if leaf.name in WEIGHTS and len(leaf.path) > 1 else leaf.path[:-1]


def _is_lora(leaf: Leaf) -> bool:
    names = (*_module_of(leaf)[-1:], *leaf.classes)
    return any("lora" in name.lower() for name in names)

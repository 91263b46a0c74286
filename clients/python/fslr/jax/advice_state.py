"""Finds the state of ``scale_by_advice`` inside an optimizer's state, and replaces multipliers.

This happens on the host, between compiled steps. New multipliers have the type, the shape and the
sharding of the old ones, so compiled steps accept them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from fslr.errors import AttachError
from fslr.jax.advice_transform import AdviceState
from fslr.jax.names import name_of

_TRANSFORM = (
    "end the optimizer's chain with it: optax.chain(optax.adamw(...), fslr.jax.scale_by_advice())"
)


def advice_states(opt_state: Any) -> list[AdviceState]:
    """Return the states of ``scale_by_advice`` in an optimizer's state, however it is nested.

    Args:
        opt_state: The state, of ``optax.chain``, ``MultiSteps``, ``partition``, ``masked``,
            ``inject_hyperparams`` and the like.
    """
    return [leaf for leaf in jax.tree.leaves(opt_state, is_leaf=_is_advice) if _is_advice(leaf)]


def multipliers_of(opt_state: Any) -> dict[str, float | list[float]]:
    """Return the multipliers in force by the name of their leaf; it waits for the device.

    A stacked leaf has a list with an entry for each layer.

    Args:
        opt_state: The state of an optimizer with ``scale_by_advice``.

    Raises:
        AttachError: The optimizer has no ``scale_by_advice``, or two for one leaf.
    """
    return {name: np.asarray(value).tolist() for name, value in _by_name(opt_state).items()}


def with_multipliers(
    opt_state: Any, multipliers: Mapping[str, ArrayLike], *, keeps_decay: bool = False
) -> Any:
    """Return an optimizer's state with other multipliers; nothing is compiled again.

    Args:
        opt_state: The state of an optimizer with ``scale_by_advice``; it is not changed.
        multipliers: Some multipliers by the name of their leaf: a number, or for a stacked leaf an
            entry for each layer. The others stay as they are.
        keeps_decay: Whether weight decay stays what the settings say, where the transformation
            knows it.

    Raises:
        AttachError: The optimizer has no ``scale_by_advice``, two for one leaf, or none for one of
            the names; or a multiplier has a different shape.
    """
    present = _by_name(opt_state)
    unknown = sorted(multipliers.keys() - present.keys())
    if unknown:
        known = ", ".join(list(present)[:3])
        raise AttachError(
            f"scale_by_advice has no multiplier for {unknown[0]!r} (it has {known}, ...); "
            "initialize the optimizer with the parameters that are attached, and do not flatten "
            "them before it"
        )
    return jax.tree.map(
        lambda node: _replaced(node, multipliers, keeps_decay) if _is_advice(node) else node,
        opt_state,
        is_leaf=_is_advice,
    )


def _replaced(
    state: AdviceState, multipliers: Mapping[str, ArrayLike], keeps_decay: bool
) -> AdviceState:
    def replaced(path: tuple[Any, ...], old: jax.Array) -> jax.Array:
        name = name_of(path[:1])
        return like(old, multipliers[name], name) if name in multipliers else old

    keeps = jax.tree.map(lambda old: like(old, keeps_decay, "keeps_decay"), state.keeps_decay)
    return state._replace(
        multipliers=jax.tree_util.tree_map_with_path(replaced, state.multipliers),
        keeps_decay=keeps,
    )


def like(old: jax.Array, value: ArrayLike, name: str) -> jax.Array:
    """Return a value as an array that compiled code accepts in place of an old one.

    A Python float, a NumPy scalar or an array on a different device would be compiled for anew.

    Args:
        old: The array that it replaces.
        value: The value.
        name: What it is, for errors.

    Raises:
        AttachError: It has a different shape.
    """
    new = np.asarray(value, old.dtype)
    if new.shape != old.shape:
        raise AttachError(
            f"the multiplier of {name} has the shape {new.shape}, and scale_by_advice has "
            f"{old.shape}; name stacked subtrees in scale_by_advice(stacked=...) and in attach"
        )
    # An array without a fixed device stays one: a fixed device is a different signature.
    placed: jax.Array = jax.device_put(new, old.sharding if old.committed else None)
    return placed


def decays_of(opt_state: Any) -> dict[str, float]:
    """Return which part of each leaf's weights the latest step took away as weight decay.

    Args:
        opt_state: The state of an optimizer with ``scale_by_advice``.

    Returns:
        The parts by name, as scheduled; empty where the transformation does not know the decay.
    """
    return {
        name_of(path[:1]): float(np.asarray(part))
        for state in advice_states(opt_state)
        for path, part in jax.tree_util.tree_flatten_with_path(state.decays)[0]
    }


def knows_decay(opt_state: Any) -> bool:
    """Return whether each ``scale_by_advice`` of an optimizer can keep its weight decay."""
    states = advice_states(opt_state)
    return bool(states) and all(state.keeps_decay is not None for state in states)


def step_counts(opt_state: Any) -> list[int]:
    """Return the number of updates that each ``scale_by_advice`` has made; waits for the device."""
    return [int(np.asarray(jax.tree.leaves(state.count)[0])) for state in advice_states(opt_state)]


def _by_name(opt_state: Any) -> dict[str, jax.Array]:
    """Return all multipliers by name.

    Raises:
        AttachError: There is no ``scale_by_advice``, or there are two for one leaf.
    """
    found: dict[str, jax.Array] = {}
    for name, multiplier in _named_multipliers(opt_state):
        if name in found:
            raise AttachError(
                f"two scale_by_advice in the optimizer scale {name}; keep the one at the end of "
                "the chain"
            )
        found[name] = multiplier
    if not found:
        raise AttachError(f"the optimizer's state has no scale_by_advice; {_TRANSFORM}")
    return found


def _named_multipliers(opt_state: Any) -> Iterator[tuple[str, jax.Array]]:
    for state in advice_states(opt_state):
        for path, multiplier in jax.tree_util.tree_flatten_with_path(state.multipliers)[0]:
            yield name_of(path[:1]), multiplier


def _is_advice(node: object) -> bool:
    return isinstance(node, AdviceState)

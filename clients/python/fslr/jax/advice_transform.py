r"""The last transformation of an optimizer's chain: it multiplies updates by the advice.

With a multiplier :math:`m` the update :math:`u` becomes :math:`m u`, as if the learning rate were
:math:`m` times what the schedule says. An update of AdamW contains the weight decay
:math:`-\eta \lambda w`, so by default the decay is scaled too. If the policy keeps the decay
(``independent``), and the transformation knows :math:`\eta` and :math:`\lambda`, it becomes
:math:`m u + (m - 1) \eta \lambda w`, whose decay is again :math:`-\eta \lambda w`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from fslr.errors import AttachError
from fslr.jax.names import name_of, named_leaves

Number: TypeAlias = float | jax.Array
LearningRate: TypeAlias = Number | Callable[[jax.Array], Number]
"""A learning rate, or a schedule: a function of the number of steps so far."""


class AdviceState(NamedTuple):
    """The state of :func:`scale_by_advice`.

    Attributes:
        count: Number of updates so far, int32.
        multipliers: A float32 scalar for each leaf of the parameters, by its name; for a stacked
            leaf a vector with an entry for each layer.
        keeps_decay: 1 if the weight decay of a step stays what the settings say, else 0; float32.
            None: the transformation does not know the decay.
        decays: Which part of each leaf's weights the latest update took away as weight decay, as
            scheduled; float32 scalars by name. None: the transformation does not know the decay.
    """

    count: jax.Array  # type: ignore[assignment]  # optax's name; a tuple has a method of it
    multipliers: dict[str, jax.Array]
    keeps_decay: jax.Array | None
    decays: dict[str, jax.Array] | None


def scale_by_advice(
    *,
    weight_decay: Number | None = None,
    learning_rate: LearningRate | None = None,
    mask: Any = None,
    stacked: Mapping[str, int] | None = None,
) -> optax.GradientTransformation:
    """Multiply each leaf's update by the multiplier that the advisor recommends.

    It belongs at the end of the chain, behind the learning rate::

        tx = optax.chain(optax.adamw(schedule), fslr.jax.scale_by_advice())

    All multipliers are 1 until an attachment replaces them, outside of compiled code. Their types,
    shapes and shardings stay, so that nothing is compiled again.

    Args:
        weight_decay: The decoupled weight decay of the transformations before, as given to
            ``optax.adamw``; 0 if they have none. It is needed to keep the decay of a step under
            the policy's rule ``independent``. None: not known, so multipliers scale the decay.
        learning_rate: The learning rate or the schedule that the decay is multiplied by, if
            ``weight_decay`` is above 0.
        mask: Which leaves decay, as given to ``optax.adamw``: a pytree of bools, or a function of
            the parameters that returns one. None: all of them.
        stacked: The axis that counts layers, by the name of a leaf or of a subtree, such as
            ``{"blocks": 0}`` for blocks that ``nn.scan`` or ``jax.lax.scan`` runs. Each of their
            layers has its own multiplier.

    Raises:
        AttachError: ``weight_decay`` is above 0, and there is no ``learning_rate``.
    """
    decays = weight_decay is not None and not (
        isinstance(weight_decay, (int, float)) and weight_decay == 0
    )
    if decays and learning_rate is None:
        raise AttachError(
            f"scale_by_advice has the weight decay {weight_decay} and no learning_rate; pass the "
            "learning rate or the schedule of the optimizer as well"
        )

    stacks = dict(stacked or {})

    def init(params: Any) -> AdviceState:
        leaves = named_leaves(params)
        return AdviceState(
            count=jnp.zeros((), jnp.int32),
            multipliers={
                name: jnp.ones(_layers(leaf, depth_axis(name, stacks)), jnp.float32)
                for name, leaf in leaves.items()
            },
            keeps_decay=None if weight_decay is None else jnp.zeros((), jnp.float32),
            decays={name: jnp.zeros((), jnp.float32) for name in leaves} if decays else None,
        )

    def update(updates: Any, state: AdviceState, params: Any = None) -> tuple[Any, AdviceState]:
        of_step = state.decays
        if decays:
            if params is None:
                raise ValueError(
                    "scale_by_advice keeps weight decay and needs the parameters; call "
                    "tx.update(grads, state, params)"
                )
            part = jnp.asarray(_value(learning_rate, state.count), jnp.float32)
            part *= jnp.asarray(weight_decay, jnp.float32)
            of_step = {
                name: part * (1.0 if decaying else 0.0)
                for name, decaying in _masked(mask, params).items()
            }
        weights = named_leaves(params) if decays else {}

        def scaled(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
            name = name_of(path)
            multiplier = _of_leaf(state, name)
            axis = depth_axis(name, stacks)
            factor = _spread(multiplier, value, axis)
            result = value * factor.astype(jnp.promote_types(value.dtype, jnp.float32))
            if of_step is not None and state.keeps_decay is not None:
                kept = state.keeps_decay * of_step[name] * (multiplier - 1)
                result += _spread(kept, value, axis) * weights[name]
            return result.astype(value.dtype)

        count = optax.safe_increment(state.count)
        return (
            jax.tree_util.tree_map_with_path(scaled, updates),
            AdviceState(count, state.multipliers, state.keeps_decay, of_step),
        )

    return optax.GradientTransformation(init, update)


def depth_axis(name: str, stacked: Mapping[str, int]) -> int | None:
    """Return the axis of a leaf that counts layers; None: it belongs to one layer.

    Args:
        name: The name of the leaf.
        stacked: As in :func:`scale_by_advice`.
    """
    for prefix, axis in stacked.items():
        if name == prefix or name.startswith(f"{prefix}."):
            return axis
    return None


def _layers(leaf: Any, axis: int | None) -> tuple[int, ...]:
    """Return the shape of a leaf's multipliers.

    Raises:
        AttachError: The leaf has no such axis.
    """
    if axis is None:
        return ()
    if not 0 <= axis < leaf.ndim:
        raise AttachError(
            f"stacked says that axis {axis} counts layers, and a leaf there has the shape "
            f"{leaf.shape}; name the axis that nn.scan or jax.lax.scan runs over"
        )
    return (leaf.shape[axis],)


def _of_leaf(state: AdviceState, name: str) -> jax.Array:
    """Return the multiplier of a leaf.

    Raises:
        ValueError: The optimizer was initialized without it.
    """
    if name not in state.multipliers:
        known = ", ".join(list(state.multipliers)[:3]) or "none"
        raise ValueError(
            f"there is no multiplier for {name!r} (there are {known}, ...); initialize the "
            "optimizer with parameters of the same structure as the updates"
        )
    return state.multipliers[name]


def _spread(multiplier: jax.Array, value: jax.Array, axis: int | None) -> jax.Array:
    """Return a multiplier in a shape that broadcasts to a leaf."""
    if axis is None:
        return multiplier
    shape = [1] * value.ndim
    shape[axis] = -1
    return multiplier.reshape(shape)


def _value(learning_rate: LearningRate | None, count: jax.Array) -> Any:
    return learning_rate(count) if callable(learning_rate) else learning_rate


def _masked(mask: Any, params: Any) -> dict[str, bool]:
    """Return whether each leaf decays, by its name."""
    if callable(mask):
        mask = mask(params)
    if mask is None:
        return dict.fromkeys(named_leaves(params), True)
    spread = jax.tree.map(lambda flag, part: jax.tree.map(lambda _: flag, part), mask, params)
    return {name: bool(flag) for name, flag in named_leaves(spread).items()}

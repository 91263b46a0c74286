"""Decides, from shapes only, how each group is measured.

The function is traced once, and its parameters are followed to the places where they act on the
examples. Then its reverse mode is traced with an offset at each of these places, and the examples
of a probe are followed through it. So whether the rows of a cotangent belong to single examples is
derived from the equations, and not observed in numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fslr.jax.estimators.exact import group_changes
from fslr.jax.estimators.per_example.follow import Follower
from fslr.jax.estimators.per_example.index_values import IndexValues
from fslr.jax.estimators.per_example.parts import INNER, Followed, Part, Stack, State, UseKey
from fslr.jax.estimators.per_example.row_analysis import labels_of_results
from fslr.jax.estimators.per_example.row_labels import Label, Mixed, Rows
from fslr.jax.estimators.per_example.taps import UseFinder, UseLabel
from fslr.jax.estimators.step import Step

MIXED_ROWS = "the rows of a result depend on several examples"
NO_REVERSE = "the model has no reverse mode"
_MAX_EXACT_GROUPS = 4  # each costs about as much as one probe
SUMMED_PROBES = 8  # per requested probe, for groups with one degree of freedom per probe


@dataclass(frozen=True, slots=True)
class Plan:
    """How a function is measured.

    Attributes:
        uses: Where the examples are in the result of each use that has an effect.
        parts: The parts of the parameters that act at each use.
        direct: The groups that act directly on the outputs, by use: their squares are exact.
        shapes: Shape and type of the results of these uses.
        exact: Groups that are measured by Jacobian-vector products.
        at_leaves: Groups whose rows are summed and that are moved at their leaves.
        summed: Groups of which only the sum of rows has a meaning.
        slow: Groups that take a slow route, with the reason.
        probe_factor: Number of probes per requested probe.
    """

    uses: dict[UseKey, UseLabel]
    parts: dict[UseKey, tuple[Part, ...]]
    direct: dict[UseKey, frozenset[int]]
    shapes: dict[UseKey, jax.ShapeDtypeStruct]
    exact: tuple[int, ...]
    at_leaves: tuple[int, ...]
    summed: frozenset[int]
    slow: dict[int, str]
    probe_factor: int


def find_plan(step: Step) -> Plan:
    """Trace a function and decide how it is measured.

    Args:
        step: The step; only shapes and types matter here.

    Raises:
        ValueError: The function could not be traced.
    """
    (outputs,) = step.function.out_avals
    examples = outputs.shape[0]
    finder = UseFinder(examples)
    follower = Follower(finder)

    def with_offsets(offsets: State) -> Array:
        return follow(follower, step, offsets)

    jax.eval_shape(lambda: with_offsets({}))
    unfollowed = dict(follower.unfollowed)
    everything = range(len(step.groups))
    try:
        uses = _uses(with_offsets, finder, outputs, examples)
    except ValueError as error:
        if "Reverse-mode" not in str(error):
            raise
        slow = dict.fromkeys(everything, NO_REVERSE)
        return Plan({}, {}, {}, {}, tuple(everything), (), frozenset(), slow, 1)
    direct = _direct(uses, finder.parts)
    mixed: dict[int, str] = {}
    if examples > 1:
        for use, label in uses.items():
            if isinstance(label, Mixed):
                mixed |= {g: MIXED_ROWS for part in finder.parts[use] for g in groups_of(part)}
    slow = {**mixed, **unfollowed}
    exact: tuple[int, ...] = ()
    factor = 1
    if len(slow) <= _MAX_EXACT_GROUPS and (not slow or _has_forward_mode(step)):
        exact = tuple(sorted(slow))
    else:
        factor = SUMMED_PROBES if examples > 1 else 1
    at_leaves = tuple(sorted(set(unfollowed) - set(exact)))
    summed = frozenset(slow) - set(exact)
    ways = {True: ", so it is measured by a derivative of its own", False: ", so they are summed"}
    reasons = {g: f"{reason}{ways[g in exact]}" for g, reason in slow.items()}
    return Plan(
        uses, finder.parts, direct, finder.shapes, exact, at_leaves, summed, reasons, factor
    )


def _has_forward_mode(step: Step) -> bool:
    """Return whether the changes of the outputs by single groups can be computed."""
    try:
        jax.eval_shape(lambda: group_changes(step)[1](jnp.int32(0)))
    except TypeError:
        return False
    return True


def groups_of(part: Part) -> list[int]:
    """Return the groups of a part."""
    return [part] if isinstance(part, int) else [group for group in part.groups if group >= 0]


def _uses(
    with_offsets: Callable[[State], Array],
    finder: UseFinder,
    outputs: Any,
    examples: int,
) -> dict[UseKey, UseLabel]:
    """Return where the examples are in the cotangent at each use that has an effect."""
    keys = list(finder.shapes)
    if not keys:
        return {}

    def cotangents(offsets: list[Array], probe: Array) -> list[Array]:
        at = lambda offsets: with_offsets(dict(zip(keys, offsets, strict=True)))  # noqa: E731
        return list(jax.vjp(at, offsets)[1](probe)[0])

    traced = jax.make_jaxpr(cotangents)([finder.offset(key) for key in keys], outputs)
    given: list[Label] = [*[None] * len(keys), Rows(0, 1, direct=True)]
    indices = IndexValues(traced.jaxpr, traced.consts)
    found = labels_of_results(traced.jaxpr, given, examples, indices)
    labels = {key: finder.label(key, of_key) for key, of_key in zip(keys, found, strict=True)}
    return {key: label for key, label in labels.items() if label is not None}


def _direct(
    uses: dict[UseKey, UseLabel], parts: dict[UseKey, tuple[Part, ...]]
) -> dict[UseKey, frozenset[int]]:
    """Return the groups that act directly on the outputs, by use.

    A group with several such uses is left out, because its parts at one output element would have
    to be added first.
    """
    at = [
        use
        for use, label in uses.items()
        # What is computed inside of a loop or a checkpoint cannot be kept for later.
        if isinstance(label, Rows) and label.direct and INNER not in use
    ]
    counts: dict[Part, int] = {}
    for use in at:
        for part in parts[use]:
            counts[part] = counts.get(part, 0) + 1
    found = {
        use: frozenset(p for p in parts[use] if isinstance(p, int) and counts[p] == 1) for use in at
    }
    return {use: groups for use, groups in found.items() if groups}


def follow(
    follower: Follower,
    step: Step,
    state: State,
    without: Sequence[int] = (),
) -> Array:
    """Evaluate a traced function and follow its parameters.

    Args:
        follower: Evaluates the traced function.
        step: The step.
        state: The state of the follower's tap.
        without: Groups that are not followed.
    """
    parts = parts_of_leaves(step, without)
    arguments = [
        Followed(leaf, {parts[n]: step.updates[n].astype(leaf.dtype)} if n in parts else {})
        for n, leaf in enumerate(step.leaves)
    ]
    arguments += [Followed(leaf, is_data=True) for leaf in jax.tree_util.tree_leaves(step.batch)]
    (result,) = follower.run(step.function.jaxpr, step.function.consts, arguments, state)
    outputs: Array = jnp.asarray(follower.as_data(result, state, ("outputs",)))
    return outputs


def parts_of_leaves(step: Step, without: Sequence[int] = ()) -> dict[int, Part]:
    """Return the part of the parameters that each leaf of a group is.

    Args:
        step: The step.
        without: Groups that are left out.
    """
    found: dict[int, Part] = {}
    layers: dict[int, list[int]] = {}
    axes: dict[int, int] = {}
    for number, group in enumerate(step.groups):
        if number in without:
            continue
        for index in group.leaves:
            if group.layer is None:
                found[index] = number
            else:
                axes[index] = group.axis
                size = step.leaves[index].shape[group.axis]
                layers.setdefault(index, [-1] * size)[group.layer] = number
    return found | {index: Stack(tuple(owners), axes[index]) for index, owners in layers.items()}

"""Follows parameters through a traced function to the places where they act on the examples.

A value that depends on parameters only is followed together with its first-order change by each
part of the parameters. Where such a value meets the data, as in a product of activations and a
kernel, the result has a local map: its change by the parameter, with the data held. The function
calls a :class:`Tap` there and goes on with what that returns. For a product the local map is
``x @ U`` beside ``x @ W``; for any other primitive it is its derivative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import jax
from jax import Array
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from fslr.jax.estimators.per_example.equations import changes_of, evaluate
from fslr.jax.estimators.per_example.parts import (
    INNER,
    Followed,
    Layer,
    Loop,
    Part,
    Stack,
    State,
    UseKey,
)
from fslr.jax.estimators.per_example.row_rules import ELEMENTWISE

_MAX_CHANGES = 16  # of one value, by different parts of the parameters

TOO_MANY = "it is computed with more than 16 groups before it meets the data"
STACK_LEFT = "its stacked layers are used without a scan over them"
NO_DERIVATIVE = "a function that takes it has a derivative rule that cannot be transposed"


class Tap(Protocol):
    """Called at each place where parameters act on the examples."""

    def __call__(
        self, state: State, use: UseKey, result: Array, changes: Mapping[Part, Array]
    ) -> Array:
        """Return the result to go on with.

        Args:
            state: The state.
            use: The place.
            result: The result there.
            changes: Its changes by parts of the parameters, with the data held. They may lack
                leading dimensions of the result along which they are the same.
        """
        ...

    def slices(self, state: State, loop: Loop, stacks: Sequence[Stack]) -> State:
        """Return the entries of the state inside of a loop that have a slice for each iteration.

        Args:
            state: The state outside of the loop.
            loop: The loop.
            stacks: The stacks whose layers it goes along.
        """
        ...


class Follower:
    """Evaluates a jaxpr and follows parameters through it.

    Args:
        tap: Called where parameters act on the examples.

    Attributes:
        unfollowed: The groups that could not be followed, with the reason for each. Their changes
            are left out from there on.
    """

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self.unfollowed: dict[int, str] = {}

    def run(
        self,
        jaxpr: Jaxpr,
        consts: Sequence[Any],
        arguments: Sequence[Followed],
        state: State,
        place: UseKey = (),
    ) -> list[Followed]:
        """Return the results of a jaxpr.

        Args:
            jaxpr: The jaxpr.
            consts: Its constants.
            arguments: Its arguments.
            state: The state of the tap.
            place: Where the jaxpr is in the whole function.
        """
        known: dict[Any, Followed] = dict(zip(jaxpr.constvars, map(Followed, consts), strict=True))
        known.update(zip(jaxpr.invars, arguments, strict=True))

        def read(variable: Any) -> Followed:
            return Followed(variable.val) if isinstance(variable, Literal) else known[variable]

        for number, eqn in enumerate(jaxpr.eqns):
            operands = [read(variable) for variable in eqn.invars]
            results = self._results(eqn, operands, state, (*place, number))
            known.update(zip(eqn.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def as_data(self, followed: Followed, state: State, use: UseKey) -> Any:
        """Return a value whose changes, if it has any, are tapped."""
        if not followed.changes:
            return followed.value
        changes = dict(followed.changes)
        for part in [part for part in changes if isinstance(part, Stack)]:
            self._leave_out(part, STACK_LEFT)
            del changes[part]
        return self._tap(state, use, followed.value, changes) if changes else followed.value

    def _leave_out(self, part: Part, reason: str) -> None:
        groups = [part] if isinstance(part, int) else [g for g in part.groups if g >= 0]
        for group in groups:
            self.unfollowed.setdefault(group, reason)

    def _results(
        self, eqn: JaxprEqn, operands: list[Followed], state: State, place: UseKey
    ) -> list[Followed]:
        has_changes = any(operand.changes for operand in operands)
        is_data = any(operand.is_data for operand in operands)
        name = eqn.primitive.name
        if not has_changes or name == "stop_gradient":
            values = evaluate(eqn, [operand.value for operand in operands])
            return [Followed(value, is_data=is_data) for value in values]
        if name in _INLINED:
            jaxpr, consts = _closed(eqn.params[_INLINED[name]])
            return self.run(jaxpr, consts, operands, state, place)
        if is_data and name in _CALLS:
            return _CALLS[name](self, eqn, operands, state, place)
        return self._simple(eqn, operands, state, place, is_data=is_data)

    def _simple(
        self,
        eqn: JaxprEqn,
        operands: list[Followed],
        state: State,
        place: UseKey,
        *,
        is_data: bool,
    ) -> list[Followed]:
        """Evaluate an equation and the derivative by each part of its operands' changes."""
        values = [operand.value for operand in operands]
        results = evaluate(eqn, values)
        found: list[dict[Part, Array]] = [{} for _ in results]
        parts = {part: None for operand in operands for part in operand.changes}
        if len(parts) > _MAX_CHANGES:
            for part in parts:
                self._leave_out(part, TOO_MANY)
            parts = {}
        for part in parts:
            kept = self._kept_part(eqn, part, is_data=is_data)
            for into, change in zip(found, self._changes(eqn, operands, part, kept), strict=False):
                if kept is not None and change is not None:
                    into[kept] = into[kept] + change if kept in into else change
        if is_data and eqn.primitive.name in _SUMS:
            found[0] |= _changes_of_addends(operands, results[0], found[0])
        if not is_data:
            return [Followed(value, each) for value, each in zip(results, found, strict=True)]
        return [
            Followed(
                self._tap(state, (*place, position), value, each) if each else value, is_data=True
            )
            for position, (value, each) in enumerate(zip(results, found, strict=True))
        ]

    def _kept_part(self, eqn: JaxprEqn, part: Part, *, is_data: bool) -> Part | None:
        """Return the part that an equation's results have of an operand's part; None: no part."""
        if not isinstance(part, Stack):
            return part
        layer = _layer(eqn, part)
        if is_data or (layer is None and eqn.primitive.name not in ELEMENTWISE):
            self._leave_out(part, STACK_LEFT)
            return None
        if layer is None:
            return part
        return part.groups[layer] if part.groups[layer] >= 0 else None

    def _changes(
        self, eqn: JaxprEqn, operands: list[Followed], part: Part, kept: Part | None
    ) -> list[Array | None]:
        """Return the changes of an equation's results by a part; empty if there are none."""
        if kept is None:
            return []
        changes = {
            position: operand.changes[part]
            for position, operand in enumerate(operands)
            if part in operand.changes
        }
        try:
            return changes_of(eqn, [operand.value for operand in operands], changes)
        except (TypeError, NotImplementedError):
            self._leave_out(part, NO_DERIVATIVE)
            return []

    def flat(
        self,
        jaxpr: Jaxpr,
        consts: Sequence[Any],
        operands: Sequence[Followed],
        place: UseKey,
    ) -> tuple[list[Any], Callable[[Any], list[Any]]]:
        """Return a jaxpr as a function of one pytree of arrays, for loops and branches.

        Args:
            jaxpr: The jaxpr.
            consts: Its constants.
            operands: Its arguments; those with changes are followed, all others count as data.
            place: Where the jaxpr is in the whole function.

        Returns:
            The values and changes of the operands, and a function of these and of the state. It
            returns values without changes.
        """
        parts = [list(operand.changes) for operand in operands]
        arrays = [(operand.value, list(operand.changes.values())) for operand in operands]

        def call(arguments: Any) -> list[Any]:
            arrays, state = arguments
            inner = [
                Followed(value, dict(zip(keys, changes, strict=True)), is_data=not keys)
                for (value, changes), keys in zip(arrays, parts, strict=True)
            ]
            results = self.run(jaxpr, consts, inner, state, place)
            return [
                self.as_data(result, state, (*place, "result", position))
                for position, result in enumerate(results)
            ]

        return arrays, call


def _changes_of_addends(
    operands: Sequence[Followed], result: Array, parts: Container[Part]
) -> dict[Part, Array]:
    """Return the changes of a sum that are the same along its leading dimensions, without these.

    Sums over the products with such a change, as that of a bias, are products of matrices.

    Args:
        operands: The addends.
        result: Their sum.
        parts: The parts whose changes are kept.
    """
    counts = Counter(part for operand in operands for part in operand.changes)
    found: dict[Part, Array] = {}
    for operand in operands:
        for part, change in operand.changes.items():
            leading = next((d for d, size in enumerate(change.shape) if size > 1), change.ndim)
            is_same = change.ndim == result.ndim and 0 < leading < change.ndim
            kept = change.shape[leading:]
            if part in parts and is_same and counts[part] == 1 and kept == result.shape[leading:]:
                found[part] = change.reshape(kept)
    return found


def _closed(value: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """Return a jaxpr that may be closed, and its constants."""
    return getattr(value, "jaxpr", value), getattr(value, "consts", ())


def _layer(eqn: JaxprEqn, stack: Stack) -> int | None:
    """Return the layer that an equation takes from a stack; None: it takes no single one."""
    if eqn.primitive.name != "slice":
        return None
    start, limit = (eqn.params[key][stack.axis] for key in ("start_indices", "limit_indices"))
    return int(start) if limit == start + 1 else None


def _remat(
    follower: Follower, eqn: JaxprEqn, operands: list[Followed], state: State, place: UseKey
) -> list[Followed]:
    jaxpr, consts = _closed(eqn.params["jaxpr"])
    arrays, call = follower.flat(jaxpr, consts, operands, (*place, INNER))
    keys = list(state)
    again = jax.checkpoint(
        lambda arrays, entries: call((arrays, dict(zip(keys, entries, strict=True)))),
        prevent_cse=eqn.params["prevent_cse"],
        policy=eqn.params["policy"],
    )
    return [Followed(value, is_data=True) for value in again(arrays, list(state.values()))]


def _cond(
    follower: Follower, eqn: JaxprEqn, operands: list[Followed], state: State, place: UseKey
) -> list[Followed]:
    index, *rest = operands
    calls = []
    for number, branch in enumerate(eqn.params["branches"]):
        jaxpr, consts = _closed(branch)
        arrays, call = follower.flat(jaxpr, consts, rest, (*place, INNER, number))
        calls.append(call)
    results = jax.lax.switch(
        index.value, [lambda given, call=call: call((given, state)) for call in calls], arrays
    )
    return [Followed(value, is_data=True) for value in results]


def _scan(
    follower: Follower, eqn: JaxprEqn, operands: list[Followed], state: State, place: UseKey
) -> list[Followed]:
    params = eqn.params
    consts, carried = params["num_consts"], params["num_carry"]
    jaxpr, closed = _closed(params["jaxpr"])
    kept = operands[:consts]
    start = [
        Followed(follower.as_data(operand, state, (*place, "carry", position)), is_data=True)
        for position, operand in enumerate(operands[consts : consts + carried])
    ]
    stacks: list[Stack] = []
    sliced = [_sliced(follower, operand, stacks) for operand in operands[consts + carried :]]
    arrays, call = follower.flat(jaxpr, closed, [*kept, *start, *sliced], (*place, INNER))
    of_consts, of_carry = arrays[:consts], [value for value, _ in arrays[consts : consts + carried]]
    loop = Loop(place, params["length"])
    of_iterations = follower._tap.slices(state, loop, stacks)  # noqa: SLF001 - these are its methods
    keys = list(of_iterations)

    def body(carry: list[Any], slices: Any) -> tuple[list[Any], list[Any]]:
        inner, entries = slices
        inside = {**state, **dict(zip(keys, entries, strict=True))}
        results = call(([*of_consts, *((value, []) for value in carry), *inner], inside))
        return results[:carried], results[carried:]

    carry, stacked = jax.lax.scan(
        body,
        of_carry,
        (arrays[consts + carried :], list(of_iterations.values())),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [Followed(value, is_data=True) for value in [*carry, *stacked]]


def _sliced(follower: Follower, operand: Followed, stacks: list[Stack]) -> Followed:
    """Return what a scan slices; stacks that it goes along are added to a list."""
    changes: dict[Part, Array] = {}
    for part, change in operand.changes.items():
        if isinstance(part, Stack):
            if part.axis != 0:
                follower._leave_out(part, STACK_LEFT)  # noqa: SLF001 - these are its methods
                continue
            if part not in stacks:
                stacks.append(part)
            changes[Layer(part.groups)] = change
        else:
            changes[part] = change
    return replace(operand, changes=changes)


_SUMS = {"add", "add_any"}
_INLINED = {
    **dict.fromkeys(("jit", "pjit", "closed_call"), "jaxpr"),
    "core_call": "call_jaxpr",
}
_CALLS: dict[
    str,
    Callable[[Follower, JaxprEqn, list[Followed], State, UseKey], list[Followed]],
] = {
    "cond": _cond,
    "remat2": _remat,
    "checkpoint": _remat,
    "scan": _scan,
}

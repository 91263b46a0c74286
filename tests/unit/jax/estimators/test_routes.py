"""Whatever primitives a model is made of, its projections are right.

Two facts are checked for each model, without any noise. The projections of a group add up to
``z . d f``, with the change ``d f`` by a Jacobian-vector product. And where the rows are said to
belong to examples, each row scales with the probe's entries of its example, for scales that are
different powers of two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from fslr.jax.estimators.exact import group_changes
from fslr.jax.estimators.per_example.plan import Plan, find_plan
from fslr.jax.estimators.per_example.projector import Projector
from fslr.jax.estimators.step import Step
from tests.unit.jax.estimators.cases import Case, Params, normal, scanned_gpt, tokens

_EXAMPLES = 6
_X = normal(3, _EXAMPLES, 4)
_SEQUENCES = normal(4, _EXAMPLES, 5, 4)
_WEIGHTS = {"a": normal(0, 4, 6), "o": normal(1, 6, 3)}
_THREE = {**_WEIGHTS, "b": normal(2, 6, 6)}


def check(case: Case) -> Plan:
    """Check the projections of a model, and return how it is measured."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(case.params)]
    structure = jax.tree.structure(case.params)
    groups, updates = tuple(case.groups), jax.tree.leaves(case.updates)
    plans: list[Plan] = []

    def apply(leaves: Any, batch: Any) -> Any:
        return case.apply(jax.tree.unflatten(structure, leaves), batch)

    @jax.jit
    def measured(batch: Any, probe: Array, scales: Array) -> tuple[Array, Array, Array]:
        function = jax.make_jaxpr(apply)(leaves, batch)
        step = Step(apply, leaves, updates, batch, groups, function)
        plans.append(find_plan(step))
        projector = Projector(plans[-1], step)
        outputs, change_of = group_changes(step)
        totals = jax.lax.map(lambda n: jnp.sum(probe * change_of(n)), jnp.arange(len(groups)))
        by_example = scales.reshape(-1, *[1] * (outputs.ndim - 1))
        return projector.project(probe)[0], projector.project(probe * by_example)[0], totals

    outputs = jax.eval_shape(case.apply, case.params, case.batch)
    probe = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), outputs.shape)
    scales = np.float32(2.0) ** np.arange(len(probe))
    rows, scaled, totals = (np.asarray(each) for each in measured(case.batch, probe, scales))
    plan = plans[-1]
    size = np.abs(rows).sum(0) + np.abs(totals) + 1e-30
    for index, group in enumerate(groups):
        if index in plan.exact:
            continue  # the projector leaves them out
        error = abs(rows[:, index].sum() - totals[index]) / size[index]
        assert error < 1e-5, (group.name, rows[:, index].sum(), totals[index])
        if index not in plan.summed:
            expected = rows[:, index] * scales
            np.testing.assert_allclose(
                scaled[:, index], expected, rtol=1e-4, atol=1e-5 * size[index], err_msg=group.name
            )
    return plan


@jax.custom_vjp
def sine_layer(x: Array, kernel: Array) -> Array:
    """A layer that defines its own reverse mode, and has no forward mode."""
    return jnp.sin(x @ kernel)


def _sine_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return jnp.sin(x @ kernel), (x, kernel)


def _sine_backward(kept: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = kept
    inner = cotangent * jnp.cos(x @ kernel)
    return inner @ kernel.T, x.T @ inner


sine_layer.defvjp(_sine_forward, _sine_backward)


@jax.custom_jvp
def bounded_gain(x: Array, gain: Array) -> Array:
    """A layer that defines its own forward mode."""
    return x * jnp.tanh(gain)


@bounded_gain.defjvp
def _bounded_gain_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, gain = primals
    bound = jnp.tanh(gain)
    return x * bound, tangents[0] * bound + x * (1 - bound**2) * tangents[1]


def _recurrent(p: Params, x: Array) -> Any:
    def step(h: Array, now: Array) -> tuple[Array, None]:
        return jnp.tanh(now @ p["a"] + h @ p["b"]), None

    start = jnp.broadcast_to(p["start"], (len(x), 6))
    return jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[0] @ p["o"]


def _time_first(p: Params, x: Array) -> Any:
    h = jnp.tanh(jnp.cumsum(jnp.swapaxes(x, 0, 1) @ p["a"] + p["c"], 0)).reshape(-1, 6)
    return jnp.swapaxes((h @ p["o"]).reshape(5, _EXAMPLES, 3), 0, 1)


def _branches(p: Params, x: Array) -> Any:
    hidden = x @ p["a"]
    hidden = jax.lax.cond(x[0, 0] > 0, lambda h: jnp.tanh(h @ p["b"]), jnp.sin, hidden)
    return hidden @ p["o"]


def _picked(p: Params, x: Array) -> Any:
    hidden = jnp.tanh(x @ p["a"])
    places = jnp.array([0, 1, 4, 2, 2, 3])
    return jnp.take_along_axis(hidden, places[:, None, None], 1)[:, 0] @ p["o"]


_PLACES = np.array([0, 1, 4, 2, 2, 3])
_PLACED = {"x": _SEQUENCES, "places": _PLACES}


def _own_positions(p: Params, batch: Any) -> Any:
    """Positions of each sequence are replaced, added to, and picked, each at its own place."""
    own, places = jnp.arange(len(batch["x"])), batch["places"]
    hidden = jnp.tanh(batch["x"] @ p["a"])
    hidden = hidden.at[own, places].set(jnp.tanh(batch["x"][:, 0] @ p["first"]))
    hidden = jnp.tanh(jnp.stack([hidden, -0.5 * hidden], 1).max(1))
    hidden = jnp.tanh(hidden.at[own, places].add(p["added"]))
    return jnp.tanh(hidden[own[:, None], jnp.stack([places, 4 - places], 1)]) @ p["o"]


def _one_by_one(p: Params, x: Array, batch_size: int | None = None) -> Any:
    """Each example goes through scanned layers and a branch of its own."""

    @jax.checkpoint
    def one(sequence: Array) -> Any:
        hidden = sequence @ p["a"]
        hidden = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), hidden, p["layers"])[0]
        return jax.lax.cond(sequence[0, 0] > 0, jnp.tanh, lambda h: h @ p["b"], hidden) @ p["o"]

    return jax.lax.map(one, x, batch_size=batch_size)


def _layer_by_layer(p: Params, x: Array, batch_size: int | None = None) -> Any:
    """Each layer takes the examples one by one; there are as many layers as examples."""

    def layer(hidden: Array, kernel: Array) -> tuple[Any, None]:
        one = lambda h: jnp.tanh(h @ kernel)  # noqa: E731
        return jax.lax.map(one, hidden, batch_size=batch_size), None

    return jax.lax.scan(layer, x @ p["a"], p["layers"])[0] @ p["o"]


def _row_by_row(p: Params, x: Array) -> Any:
    rows = jnp.swapaxes(x, 0, 1).reshape(-1, 4)
    outputs = jax.lax.map(lambda row: jnp.tanh(row @ p["a"]) @ p["o"], rows)
    return jnp.swapaxes(outputs.reshape(5, _EXAMPLES, 3), 0, 1)


def _tokens_case(apply: Callable[[Params, Any], Any], **params: Any) -> Case:
    return Case(apply, params, tokens(_EXAMPLES))


PER_EXAMPLE: dict[str, Callable[[], Case]] = {
    "its own reverse mode": lambda: Case(
        lambda p, x: jnp.tanh(sine_layer(jnp.tanh(x @ p["a"]), p["b"])) @ p["o"], _THREE, _X
    ),
    "its own forward mode": lambda: Case(
        lambda p, x: jnp.tanh(bounded_gain(x @ p["a"], p["gain"])) @ p["o"],
        {**_WEIGHTS, "gain": normal(5, 6)},
        _X,
    ),
    "normalized kernels and adapters": lambda: Case(
        lambda p, x: (
            jnp.tanh(x @ (p["a"] / jnp.linalg.norm(p["a"], axis=0) + p["d"] @ p["u"])) @ p["o"]
        ),
        {**_WEIGHTS, "d": normal(5, 4, 2), "u": normal(6, 2, 6)},
        _X,
    ),
    "a loop with one kernel": lambda: Case(
        lambda p, x: (
            jax.lax.fori_loop(0, 3, lambda _, h: jnp.tanh(h @ p["b"]), x @ p["a"]) @ p["o"]
        ),
        _THREE,
        _X,
    ),
    "recurrent with a learned start": lambda: Case(
        _recurrent, {**_THREE, "start": normal(5, 6)}, _SEQUENCES
    ),
    "branches": lambda: Case(_branches, _THREE, _X),
    "vmap of one example": lambda: Case(
        lambda p, x: jax.vmap(lambda one: jnp.tanh(one @ p["a"] + p["c"]) @ p["o"])(x),
        {**_WEIGHTS, "c": normal(5, 6)},
        _X,
    ),
    "flattened rows": lambda: Case(
        lambda p, x: (jnp.tanh(x.reshape(-1, 4) @ p["a"]) @ p["o"]).reshape(-1, 5, 3),
        _WEIGHTS,
        _SEQUENCES,
    ),
    "time first": lambda: Case(_time_first, {**_WEIGHTS, "c": normal(5, 6)}, _SEQUENCES),
    "picked positions": lambda: Case(_picked, _WEIGHTS, _SEQUENCES),
    "positions of each sequence": lambda: Case(
        _own_positions, {**_WEIGHTS, "first": normal(5, 4, 6), "added": normal(6, 6)}, _PLACED
    ),
    "logits at one position": lambda: Case(
        lambda p, batch: (jnp.tanh(batch["x"] @ p["a"]) @ p["o"])[
            np.arange(_EXAMPLES), batch["places"]
        ],
        _WEIGHTS,
        _PLACED,
    ),
    "a loop over the examples": lambda: Case(
        _one_by_one, {**_THREE, "layers": normal(5, 2, 6, 6)}, _SEQUENCES, {"layers": 0}
    ),
    "a loop over the examples in each layer": lambda: Case(
        _layer_by_layer, {**_WEIGHTS, "layers": normal(5, 6, 6, 6)}, _SEQUENCES, {"layers": 0}
    ),
    "a loop over chunks of three examples": lambda: Case(
        partial(_one_by_one, batch_size=3),
        {**_THREE, "layers": normal(5, 2, 6, 6)},
        _SEQUENCES,
        {"layers": 0},
    ),
    "a loop over chunks of two examples in each layer": lambda: Case(
        partial(_layer_by_layer, batch_size=2),
        {**_WEIGHTS, "layers": normal(5, 6, 6, 6)},
        _SEQUENCES,
        {"layers": 0},
    ),
    "a layer for each chunk": lambda: Case(
        lambda p, x: jax.lax.map(
            lambda each: jnp.tanh(each[0] @ each[1]) @ p["o"], (x.reshape(3, 2, 4), p["a"])
        ).reshape(_EXAMPLES, 3),
        {"a": normal(5, 3, 4, 6), "o": _WEIGHTS["o"]},
        _X,
        {"a": 0},
    ),
    "a loop over the rows of all examples": lambda: Case(_row_by_row, _WEIGHTS, _SEQUENCES),
    "a layer for each example": lambda: Case(
        lambda p, x: jax.lax.map(lambda each: jnp.tanh(each[0] @ each[1]) @ p["o"], (x, p["a"])),
        {"a": normal(5, 6, 4, 6), "o": _WEIGHTS["o"]},
        _X,
        {"a": 0},
    ),
    "checkpoint around the model": lambda: Case(
        jax.checkpoint(lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["o"]), _THREE, _X
    ),
    "bag of words": lambda: _tokens_case(
        lambda p, x: jnp.tanh(p["e"][x].mean(1)) @ p["o"], e=normal(5, 11, 6), o=_WEIGHTS["o"]
    ),
    "scanned GPT": scanned_gpt,
    "scanned layers that are scaled first": lambda: Case(
        lambda p, x: (
            jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, 2.0 * p["a"])[0] @ p["o"]
        ),
        {"a": normal(5, 3, 4, 4), "o": normal(6, 4, 3)},
        _X,
        {"a": 0},
    ),
}


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_rows_belong_to_examples(name: str) -> None:
    plan = check(PER_EXAMPLE[name]())
    assert (plan.slow, plan.exact, plan.probe_factor) == ({}, (), 1)


def test_logits_that_are_picked_at_one_position_leave_the_head_direct() -> None:
    plan = check(PER_EXAMPLE["logits at one position"]())
    assert list(plan.direct.values()) == [frozenset({1})]


MIXING: dict[str, Callable[[Params, Any], Any]] = {
    "examples of a chunk": lambda p, batch: jax.lax.map(
        lambda chunk: jnp.tanh(chunk @ p["a"] - jnp.mean(chunk @ p["a"], 0)) @ p["o"],
        batch["x"].reshape(3, 2, 5, 4),
    ).reshape(_EXAMPLES, 5, 3),
    "one chunk after the other": lambda p, batch: jax.lax.scan(
        lambda before, chunk: (jnp.tanh(chunk @ p["a"] + before), before @ p["o"]),
        jnp.zeros((2, 5, 6)),
        batch["x"].reshape(3, 2, 5, 4),
    )[1].reshape(_EXAMPLES, 5, 3),
    "chunks that are sorted": lambda p, batch: (
        jnp.sort(jnp.tanh(batch["x"] @ p["a"]).reshape(3, 2, 5, 6), axis=0).reshape(_EXAMPLES, 5, 6)
        @ p["o"]
    ),
    "rows of other examples": lambda p, batch: (
        jnp.tanh(batch["x"] @ p["a"])[jnp.array([1, 0, 2, 3, 4, 5]), batch["places"]] @ p["o"]
    ),
    "rows that data choose": lambda p, batch: (
        jnp.tanh(batch["x"] @ p["a"])[batch["places"], jnp.arange(_EXAMPLES) % 5] @ p["o"]
    ),
    "a loop over the examples that carries a state": lambda p, batch: jax.lax.scan(
        lambda state, x: (0.5 * state + jnp.tanh(x @ p["a"]), state @ p["o"]),
        jnp.zeros((5, 6)),
        batch["x"],
    )[1],
}


@pytest.mark.parametrize("name", MIXING)
def test_a_mixture_of_examples_is_found(name: str) -> None:
    plan = check(Case(MIXING[name], _WEIGHTS, _PLACED))
    assert plan.exact == (0,)
    assert plan.slow[0].startswith("the rows of a result depend on several examples")


def _mean_free(p: Params, x: Array) -> Any:
    h = x
    for name in "abcdef":
        h = jnp.tanh(h @ p[name])
    return (h - h.mean(0)) @ p["o"]


def test_many_groups_before_a_mixture_of_examples_are_summed_and_take_more_probes() -> None:
    params = {name: normal(n, 4, 4) for n, name in enumerate("abcdef")}
    plan = check(Case(_mean_free, {**params, "o": normal(7, 4, 3)}, _X))
    assert plan.summed == {0, 1, 2, 3, 4, 5}
    assert (plan.exact, plan.probe_factor) == ((), 8)
    assert plan.slow[0] == "the rows of a result depend on several examples, so they are summed"


def test_neighboring_examples_that_are_mixed_are_found() -> None:
    def apply(p: Params, x: Array) -> Any:
        pairs = (x @ p["a"]).reshape(-1, 2, 6)
        mixed = (pairs.mean(1, keepdims=True) + 0.1 * pairs).reshape(-1, 6)
        return jnp.tanh(mixed) @ p["o"]

    plan = check(Case(apply, _WEIGHTS, _X))
    assert plan.exact == (0,)
    assert plan.slow[0].endswith("examples, so it is measured by a derivative of its own")


def test_stacked_layers_without_a_scan_are_moved_at_their_leaves() -> None:
    def apply(p: Params, x: Array) -> Any:
        return jnp.einsum("bd,lde->ble", x, p["a"]).reshape(len(x), -1) @ p["o"]

    params = {"a": normal(0, 5, 4, 3), "o": normal(1, 15, 2)}
    plan = check(Case(apply, params, _X, {"a": 0}))
    assert plan.at_leaves == (0, 1, 2, 3, 4)
    assert plan.slow[4].startswith("its stacked layers are used without a scan over them")


def test_a_model_without_a_reverse_mode_is_measured_exactly() -> None:
    def apply(p: Params, x: Array) -> Any:
        def step(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            return carry[0] + 1, jnp.tanh(carry[1] @ p["b"])

        start = jnp.int32(0), x @ p["a"]
        return jax.lax.while_loop(lambda carry: carry[0] < 3, step, start)[1] @ p["o"]

    case = Case(apply, _THREE, _X)
    estimator = case.estimator()
    found = estimator.measure(case.params, case.updates, case.batch, jax.random.key(0)).estimate()
    np.testing.assert_allclose(found.unit_rates, case.exact(), rtol=1e-5)
    assert found.relative_errors == [0.0, 0.0, 0.0]
    assert set(estimator.slow_groups.values()) == {"the model has no reverse mode"}


def test_an_unknown_primitive_counts_as_a_mixture() -> None:
    def apply(p: Params, x: Array) -> Any:
        mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
        spec = PartitionSpec("data")  # type: ignore[no-untyped-call]
        inner = jax.shard_map(jnp.tanh, mesh=mesh, in_specs=spec, out_specs=spec)
        return inner(x @ p["a"]) @ p["o"]

    plan = check(Case(apply, _WEIGHTS, _X))
    assert plan.exact == (0,)

"""The optax transformation: its place in any optimizer, and multipliers that recompile nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fslr import AttachError
from fslr.jax import AdviceState, multipliers_of, scale_by_advice, with_multipliers
from fslr.jax.advice_state import decays_of, knows_decay, step_counts
from tests.unit.jax.nets import batches, mlp_params, train_step_of

PARAMS = mlp_params()
LABELS = {name: {"kernel": "matrix", "bias": "vector"} for name in PARAMS}
SCHEDULE = optax.linear_schedule(1e-3, 1e-2, 10)
KERNEL = "Dense_1.kernel"

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "chain": lambda: optax.chain(optax.adamw(SCHEDULE), scale_by_advice()),
    "MultiSteps": lambda: optax.MultiSteps(
        optax.chain(optax.sgd(SCHEDULE), scale_by_advice()), 2
    ).gradient_transformation(),
    "partition": lambda: optax.chain(
        optax.partition({"matrix": optax.adamw(SCHEDULE), "vector": optax.sgd(1e-2)}, LABELS),
        scale_by_advice(),
    ),
    "inside partition": lambda: optax.partition(
        {
            "matrix": optax.chain(optax.adamw(SCHEDULE), scale_by_advice()),
            "vector": optax.chain(optax.sgd(1e-2), scale_by_advice()),
        },
        LABELS,
    ),
    "masked": lambda: optax.chain(
        optax.sgd(1e-2),
        optax.masked(scale_by_advice(), {n: {"kernel": True, "bias": False} for n in PARAMS}),
    ),
    "inject_hyperparams": lambda: optax.inject_hyperparams(
        lambda learning_rate: optax.chain(
            optax.adamw(learning_rate, weight_decay=0.1),
            scale_by_advice(weight_decay=0.1, learning_rate=learning_rate),
        )
    )(learning_rate=SCHEDULE),
    "apply_if_finite": lambda: optax.apply_if_finite(
        optax.chain(optax.lion(SCHEDULE), scale_by_advice()), 3
    ),
}


def trained(
    tx: optax.GradientTransformation,
    multipliers: dict[str, Any] | None = None,
    steps: int = 1,
    **options: Any,
) -> tuple[Any, Any]:
    params, opt_state = PARAMS, tx.init(PARAMS)
    if multipliers is not None:
        opt_state = with_multipliers(opt_state, multipliers, **options)
    step = train_step_of(tx)
    for batch in batches(steps):
        params, opt_state, _ = step(params, opt_state, batch)
    return params, opt_state


def moved(params: Any, name: str = "Dense_1", part: str = "kernel") -> Any:
    return params[name][part] - PARAMS[name][part]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_multipliers_are_replaced_in_any_optimizer_and_recompile_nothing(name: str) -> None:
    tx = OPTIMIZERS[name]()
    step = train_step_of(tx)

    def trained(factor: float) -> tuple[Any, Any]:
        params, opt_state = PARAMS, with_multipliers(tx.init(PARAMS), {KERNEL: factor})
        for batch in batches(2 if name == "MultiSteps" else 1):
            params, opt_state, _ = step(params, opt_state, batch)
        return params, opt_state

    plain, _ = trained(1.0)
    advised, opt_state = trained(0.5)
    np.testing.assert_allclose(moved(advised), 0.5 * moved(plain), rtol=1e-4, atol=2e-7)
    np.testing.assert_array_equal(advised["Dense_0"]["bias"], plain["Dense_0"]["bias"])
    assert multipliers_of(opt_state)[KERNEL] == 0.5
    assert step_counts(opt_state) == [1] * (2 if name == "inside partition" else 1)
    opt_state = with_multipliers(opt_state, {KERNEL: 0.1}, keeps_decay=True)
    step(advised, opt_state, batches(1)[0])
    assert step._cache_size() == 1


@pytest.mark.parametrize("value", [0.5, np.float64(0.5), np.float32(0.5)])
def test_other_types_of_multipliers_would_recompile(value: Any) -> None:
    tx = optax.chain(optax.sgd(0.1), scale_by_advice())
    step = train_step_of(tx)
    (batch,) = batches(1)
    params, opt_state, _ = step(PARAMS, tx.init(PARAMS), batch)
    before = step._cache_size()

    def replaced(state: Any) -> Any:
        if not isinstance(state, AdviceState):
            return state
        return state._replace(multipliers={**state.multipliers, KERNEL: value})

    is_advice = lambda node: isinstance(node, AdviceState)  # noqa: E731
    step(params, jax.tree.map(replaced, opt_state, is_leaf=is_advice), batch)
    assert step._cache_size() == before + 1


def test_multipliers_are_float32_and_have_the_old_sharding() -> None:
    tx = optax.chain(optax.sgd(0.1), scale_by_advice())
    opt_state = tx.init(PARAMS)
    device = jax.devices()[0]
    committed = jax.device_put(opt_state, device)
    for state, is_committed in ((opt_state, False), (committed, True)):
        (found,) = [s for s in with_multipliers(state, {KERNEL: 2.0}) if isinstance(s, AdviceState)]
        new = found.multipliers[KERNEL]
        assert (new.dtype, new.weak_type, new.committed) == (jnp.float32, False, is_committed)
        assert new.sharding == state[1].multipliers[KERNEL].sharding


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_a_multiplier_of_1_changes_no_bit_and_updates_keep_their_type(dtype: Any) -> None:
    updates = {"a": jax.random.normal(jax.random.key(0), (64,), dtype)}
    tx = scale_by_advice()
    scaled, _ = tx.update(updates, tx.init(updates))
    assert scaled["a"].dtype == dtype
    np.testing.assert_array_equal(scaled["a"], updates["a"])


def test_each_layer_of_a_stacked_leaf_has_a_multiplier() -> None:
    params = {"blocks": {"kernel": jnp.ones((3, 2, 2))}, "head": {"kernel": jnp.ones((2, 2))}}
    tx = optax.chain(optax.sgd(1.0), scale_by_advice(stacked={"blocks": 0}))
    opt_state = with_multipliers(tx.init(params), {"blocks.kernel": [1.0, 2.0, 0.5]})
    updates, _ = tx.update(params, opt_state)
    assert updates["blocks"]["kernel"][:, 0, 0].tolist() == [-1.0, -2.0, -0.5]
    assert updates["head"]["kernel"][0, 0] == -1.0
    assert multipliers_of(opt_state)["blocks.kernel"] == [1.0, 2.0, 0.5]
    tx = scale_by_advice(stacked={"blocks": 2})
    opt_state = with_multipliers(tx.init(params), {"blocks.kernel": [3.0, 4.0]})
    updates, _ = tx.update(params, opt_state)
    assert updates["blocks"]["kernel"][0, 0].tolist() == [3.0, 4.0]


def test_an_axis_of_layers_that_a_leaf_lacks_is_refused() -> None:
    tx = scale_by_advice(stacked={"Dense_0": 1})
    with pytest.raises(AttachError, match=r"axis 1 counts layers, .* has the shape \(8,\)"):
        tx.init(PARAMS)


def decaying(**options: Any) -> optax.GradientTransformation:
    return optax.chain(optax.adamw(SCHEDULE, weight_decay=0.5), scale_by_advice(**options))


def test_multipliers_scale_weight_decay_by_default() -> None:
    plain, _ = trained(decaying())
    for options in ({}, {"weight_decay": 0.5, "learning_rate": SCHEDULE}):
        advised, _ = trained(decaying(**options), {KERNEL: 0.25})
        np.testing.assert_allclose(moved(advised), 0.25 * moved(plain), rtol=1e-4, atol=2e-7)


def test_weight_decay_is_kept_where_the_policy_and_the_transformation_say_so() -> None:
    tx = decaying(weight_decay=0.5, learning_rate=SCHEDULE)
    plain, _ = trained(tx)
    advised, opt_state = trained(tx, {KERNEL: 0.25}, keeps_decay=True)
    decay = -1e-3 * 0.5 * PARAMS["Dense_1"]["kernel"]
    expected = 0.25 * (moved(plain) - decay) + decay
    np.testing.assert_allclose(moved(advised), expected, rtol=1e-4, atol=2e-7)
    assert decays_of(opt_state)[KERNEL] == pytest.approx(5e-4)
    assert knows_decay(opt_state)


def test_before_add_decayed_weights_multipliers_never_scale_the_decay() -> None:
    tx = optax.chain(
        optax.scale_by_adam(),
        scale_by_advice(weight_decay=0),
        optax.add_decayed_weights(0.5),
        optax.scale_by_learning_rate(1e-3),
    )
    plain, _ = trained(tx)
    advised, _ = trained(tx, {KERNEL: 0.25})
    decay = -1e-3 * 0.5 * PARAMS["Dense_1"]["kernel"]
    expected = 0.25 * (moved(plain) - decay) + decay
    np.testing.assert_allclose(moved(advised), expected, rtol=1e-4, atol=2e-7)


@pytest.mark.parametrize("as_function", [True, False])
def test_a_mask_leaves_leaves_without_decay(as_function: bool) -> None:
    def mask(params: Any) -> Any:
        return {name: {"kernel": True, "bias": False} for name in params}

    tx = decaying(weight_decay=0.5, learning_rate=1e-3, mask=mask if as_function else mask(PARAMS))
    _, opt_state = trained(tx)
    assert decays_of(opt_state)["Dense_1.bias"] == 0
    assert decays_of(opt_state)[KERNEL] == pytest.approx(5e-4)


def test_a_transformation_that_does_not_know_the_decay_cannot_keep_it() -> None:
    for tx, known in ((decaying(), False), (decaying(weight_decay=0), True)):
        opt_state = tx.init(PARAMS)
        assert knows_decay(opt_state) is known
        assert decays_of(opt_state) == {}


def test_weight_decay_without_a_learning_rate_is_refused() -> None:
    with pytest.raises(AttachError, match=r"has the weight decay 0.1 and no learning_rate; pass"):
        scale_by_advice(weight_decay=0.1)


def test_keeping_weight_decay_needs_the_parameters() -> None:
    tx = scale_by_advice(weight_decay=0.1, learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"call tx.update\(grads, state, params\)"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_updates_of_other_parameters_are_refused() -> None:
    tx = scale_by_advice()
    with pytest.raises(ValueError, match=r"there is no multiplier for 'other'.*same structure"):
        tx.update({"other": jnp.ones(2)}, tx.init(PARAMS))


@pytest.mark.parametrize(
    ("tx", "multipliers", "message"),
    [
        (optax.adam(1e-3), {KERNEL: 1.0}, "has no scale_by_advice; end the optimizer's chain"),
        (
            optax.chain(scale_by_advice(), scale_by_advice()),
            {KERNEL: 1.0},
            "two scale_by_advice in the optimizer scale",
        ),
        (scale_by_advice(), {"Dense_9.kernel": 1.0}, "no multiplier for 'Dense_9.kernel'"),
        (scale_by_advice(), {KERNEL: [1.0, 2.0]}, r"has the shape \(2,\), .* has \(\)"),
    ],
)
def test_multipliers_that_do_not_fit_the_optimizer_are_refused(
    tx: optax.GradientTransformation, multipliers: dict[str, Any], message: str
) -> None:
    with pytest.raises(AttachError, match=message):
        with_multipliers(tx.init(PARAMS), multipliers)

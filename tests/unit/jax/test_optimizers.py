"""Learning rates, steps and names of the optimizers of optax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fslr.jax
from fslr import AttachError
from fslr.jax.learning_rates import LearningRates
from fslr.jax.optimizer_names import optimizer_name, optimizers_of_leaves
from fslr.jax.step_scaler import keeps_weights
from tests.unit.jax.nets import batches, train_step_of
from tests.unit.jax.trainings import (
    NAMES,
    PARAMS,
    SCHEDULE,
    advised_tx,
    advisor,
    attaching,
    recording,
    train,
)

LABELS = {name: {"kernel": "matrix", "bias": "vector"} for name in PARAMS}


@pytest.mark.compatibility("optax.MultiSteps", "advised", "accumulation")
def test_accumulated_gradients_make_one_step_of_several_calls() -> None:
    tx = optax.MultiSteps(advised_tx(), 2).gradient_transformation()
    to = advisor(interval=2)
    trained = train(tx, attaching(to, accumulate_steps=2), steps=6)
    assert trained.attached.step == 3
    assert [m.step for m in to.measurements] == [0, 2]
    assert list(to.measurements[1].learning_rates) == pytest.approx([float(SCHEDULE(2))] * 4)
    assert (trained.attached.failures, trained.compiled) == (0, 1)
    with pytest.raises(AttachError, match=r"accumulates gradients .* pass accumulate_steps"):
        attaching(to)(PARAMS, tx.init(PARAMS))


def test_injected_learning_rates_are_found_in_the_state() -> None:
    tx = optax.inject_hyperparams(
        lambda learning_rate: optax.chain(optax.adamw(learning_rate), fslr.jax.scale_by_advice())
    )(learning_rate=SCHEDULE)
    to = advisor()
    trained = train(tx, attaching(to, learning_rate=None))
    assert trained.compiled == 1
    for measurement in to.measurements:
        expected = float(SCHEDULE(measurement.step))
        assert list(measurement.learning_rates) == pytest.approx([expected] * 4)


def test_a_recorder_finds_the_largest_injected_learning_rate() -> None:
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=SCHEDULE)
    recorder = train(tx, recording(learning_rate=None, every=3), steps=4).attached
    content = recorder.profile("MLP")
    assert [point.learning_rate for point in content.points] == pytest.approx([
        float(SCHEDULE(0)),
        float(SCHEDULE(3)),
    ])
    assert content.base_learning_rate == pytest.approx(float(SCHEDULE(3)))


def test_each_leaf_may_have_its_own_learning_rate() -> None:
    tx = optax.chain(
        optax.partition({"matrix": optax.adam(SCHEDULE), "vector": optax.sgd(0.1)}, LABELS),
        fslr.jax.scale_by_advice(),
    )
    rates = jax.tree.map(lambda label: {"matrix": SCHEDULE, "vector": 0.1}[label], LABELS)
    to = advisor()
    trained = train(tx, attaching(to, learning_rate=rates))
    assert list(to.measurements[1].learning_rates) == pytest.approx([0.1, float(SCHEDULE(3))] * 2)
    assert (trained.attached.failures, trained.compiled) == (0, 1)
    groups = trained.attached._run._opening.layout.groups
    assert [group.optimizer for group in groups] == ["SGD", "", "SGD", ""]


def test_several_injected_learning_rates_must_be_given() -> None:
    sgd = optax.inject_hyperparams(optax.sgd)
    tx = optax.partition({"matrix": sgd(0.1), "vector": sgd(0.2)}, LABELS)
    with pytest.raises(AttachError, match=r"several learning rates \(0.1, 0.2\); pass attach"):
        recording(learning_rate=None)(PARAMS, tx.init(PARAMS))


def test_a_resumed_optimizer_continues_its_schedule_and_hides_its_initial_weights() -> None:
    tx = advised_tx()
    params, opt_state = PARAMS, tx.init(PARAMS)
    step = train_step_of(tx)
    for batch in batches(3):
        params, opt_state, _ = step(params, opt_state, batch)
    to = advisor()
    attachment = attaching(to)(params, opt_state)
    attachment.wrap(step)(params, opt_state, batches(1)[0])
    assert to.measurements[0].learning_rates[0] == pytest.approx(float(SCHEDULE(3)))
    groups = attachment._run._opening.layout.groups
    assert not any(group.HasField("initial_rms") for group in groups)


def test_schedules_are_computed_for_many_steps_at_a_time() -> None:
    calls = 0

    def schedule(step: Any) -> Any:
        nonlocal calls
        calls += 1
        return 0.1 / (1 + step)

    rates = LearningRates(schedule, PARAMS, optax.EmptyState())
    for step in range(300):
        rates.count = step
        assert rates.scheduled() == pytest.approx([0.1 / (1 + step)] * 4)
    assert calls <= 3
    assert rates.largest(100) == pytest.approx(0.1)


def test_schedules_of_python_numbers_work() -> None:
    def schedule(step: Any) -> float:
        return 0.1 if int(step) < 2 else 0.01

    rates = LearningRates(schedule, PARAMS, optax.EmptyState())
    rates.count = 3
    assert rates.scheduled() == [0.01] * 4


@pytest.mark.parametrize(
    ("tx", "name"),
    [
        (optax.sgd(0.1), "SGD"),
        (optax.sgd(0.1, momentum=0.9), "SGD"),
        (optax.adamw(SCHEDULE), "Adam"),
        (optax.lion(0.1), "Lion"),
        (optax.rmsprop(0.1), "RMSprop"),
        (optax.adagrad(0.1), "Adagrad"),
        (optax.adafactor(0.1), "Adafactor"),
        (optax.contrib.muon(0.1), "Muon"),
        (optax.inject_hyperparams(optax.adamw)(0.1), "Adam"),
    ],
)
def test_optimizers_are_recognized_by_their_states(
    tx: optax.GradientTransformation, name: str
) -> None:
    assert optimizer_name(tx.init(PARAMS)) == name


def test_leaves_of_other_optimizers_are_named() -> None:
    tx = optax.partition({"matrix": optax.adam(0.1), "vector": optax.lion(0.1)}, LABELS)
    assert optimizers_of_leaves(tx.init(PARAMS), NAMES) == {
        "Dense_0.bias": "Lion",
        "Dense_1.bias": "Lion",
    }
    assert optimizers_of_leaves(optax.adam(0.1).init(PARAMS), NAMES) == {}


def test_the_first_step_of_an_optimizer_with_weights_of_its_own_is_not_corrected() -> None:
    inner = optax.chain(optax.sgd(1e-3), fslr.jax.scale_by_advice())
    tx = optax.contrib.schedule_free(inner, learning_rate=1e-3)
    assert keeps_weights(tx.init(PARAMS))
    assert not keeps_weights(inner.init(PARAMS))
    plain = train(tx, steps=1)
    advised = train(tx, attaching(advisor(), learning_rate=1e-3), steps=1)
    np.testing.assert_array_equal(
        plain.params["Dense_0"]["kernel"], advised.params["Dense_0"]["kernel"]
    )


def test_a_step_that_was_skipped_is_measured_at_the_next_one() -> None:
    tx = optax.apply_if_finite(advised_tx(), 5)
    to = advisor()
    params, opt_state = PARAMS, tx.init(PARAMS)
    attachment = attaching(to)(params, opt_state)
    step = attachment.wrap(train_step_of(tx))
    good, bad = batches(1)[0], (jnp.full((8, 3), jnp.nan), jnp.ones((8, 2)))
    for batch in (bad, good):
        params, opt_state, _ = step(params, opt_state, batch)
    assert [m.step for m in to.measurements] == [1]

"""Trainings with an attachment or a recorder: what changes, what must not, and what is reported."""

from __future__ import annotations

import json
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fslr.jax
from advisor.local.in_process import InProcessAdvisor
from fslr import AttachError, Failed, LayoutMismatchError, Measured, StepPart, Warned
from fslr.jax import MeasuringOptions, multipliers_of
from fslr.testing import FakeSession
from tests.unit.jax.nets import batches, loss_of, train_step_of
from tests.unit.jax.trainings import (
    INDEPENDENT,
    NAMES,
    PARAMS,
    SCHEDULE,
    advised_tx,
    advisor,
    assert_same,
    attaching,
    recording,
    train,
)
from tests.waiting import eventually

ADAMW = optax.adamw(SCHEDULE)


@pytest.mark.compatibility("JAX", "record", "observe only")
def test_a_recorded_training_is_bit_identical_to_a_plain_one() -> None:
    plain, recorded = train(ADAMW), train(ADAMW, recording())
    assert_same(plain.params, recorded.params)
    assert_same(plain.opt_state, recorded.opt_state)
    assert (recorded.compiled, recorded.attached.failures) == (1, 0)
    content = recorded.attached.profile("MLP")
    assert [group.name for group in content.layout.groups] == NAMES
    assert [point.step for point in content.points] == [0, 2]
    assert content.points[1].learning_rate == pytest.approx(SCHEDULE(2))
    assert content.base_learning_rate == pytest.approx(SCHEDULE(3))
    assert content.provenance.optimizer == "Adam"
    assert content.layout.groups[1].initial_rms == pytest.approx(
        float(jnp.sqrt(jnp.mean(PARAMS["Dense_0"]["kernel"] ** 2)))
    )


@pytest.mark.compatibility("JAX", "observe only")
def test_an_observed_training_is_bit_identical_and_is_measured_and_answered() -> None:
    to = advisor()
    plain = train(ADAMW)
    observed = train(ADAMW, attaching(to, observe_only=True))
    assert_same(plain.params, observed.params)
    assert [m.step for m in to.measurements] == [0, 3]
    assert observed.attached.multipliers == [0.5, 2.0, 1.0, 0.25]
    assert observed.attached.failures == 0


@pytest.mark.compatibility("JAX", "advised")
def test_the_very_first_step_is_taken_with_the_first_answer_and_nothing_recompiles() -> None:
    tx = advised_tx()
    events: list[Any] = []
    plain = train(tx, steps=1)
    advised = train(tx, attaching(advisor(), listeners=[events.append]), steps=1)
    for name, factor in (("Dense_0", 2.0), ("Dense_1", 0.25)):
        moved = plain.params[name]["kernel"] - PARAMS[name]["kernel"]
        scaled = advised.params[name]["kernel"] - PARAMS[name]["kernel"]
        np.testing.assert_allclose(scaled, factor * moved, rtol=1e-3, atol=1e-6)
    longer = train(tx, attaching(advisor()), steps=5)
    assert multipliers_of(longer.opt_state) == dict(zip(NAMES, [0.5, 2.0, 1.0, 0.25], strict=True))
    assert longer.compiled == 1
    assert longer.attached.failures == 0
    assert any(isinstance(event, Measured) for event in events)


def test_measurements_carry_the_learning_rates_and_multipliers_of_their_step() -> None:
    to = advisor()
    train(advised_tx(), attaching(to))
    first, second = to.measurements
    assert list(first.multipliers) == [1.0] * 4
    assert list(second.multipliers) == [0.5, 2.0, 1.0, 0.25]
    assert list(second.learning_rates) == pytest.approx([float(SCHEDULE(3))] * 4)
    assert len(second.weight_rms) == len(second.update_rms) == 4


def test_unit_rates_do_not_depend_on_multipliers() -> None:
    to, other = advisor(), advisor(1.0, 1.0, 1.0, 1.0)
    tx = optax.chain(optax.sgd(1e-4), fslr.jax.scale_by_advice())
    for one in (to, other):
        train(tx, attaching(one, learning_rate=1e-4))
    np.testing.assert_allclose(
        to.measurements[1].unit_rates, other.measurements[1].unit_rates, rtol=2e-2
    )


def test_answers_come_in_the_background_and_take_effect_at_a_later_step() -> None:
    to = advisor(interval=1)
    tx = advised_tx()
    params, opt_state = PARAMS, tx.init(PARAMS)
    attachment = attaching(to, answers="background")(params, opt_state)
    step = attachment.wrap(train_step_of(tx))
    (batch,) = batches(1)
    params, opt_state, _ = step(params, opt_state, batch)
    to.multipliers = [4.0] * 4

    def adopted() -> bool:
        nonlocal params, opt_state
        params, opt_state, _ = step(params, opt_state, batch)
        return multipliers_of(opt_state)["Dense_0.kernel"] == 4.0

    assert eventually(adopted)
    session = attachment._run._exchange._session
    assert isinstance(session, FakeSession)
    attachment.close()
    assert session.is_closed  # which ends the run
    assert step(params, opt_state, batch)[1] is not opt_state  # steps go on, unattended


def donating_step(tx: optax.GradientTransformation) -> Any:
    def train_step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads = jax.value_and_grad(loss_of)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return jax.jit(train_step, donate_argnums=(0, 1))


def test_steps_may_donate_parameters_and_state() -> None:
    tx = advised_tx()
    kept = train(tx, attaching(advisor()))
    copied = jax.tree.map(jnp.copy, PARAMS)
    donated = train(tx, attaching(advisor()), params=copied, train_step=donating_step(tx))
    assert donated.attached.failures == 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        kept.params,
        donated.params,
    )
    assert donated.compiled == 1


def test_a_failed_measurement_never_leaves_a_step_and_the_multipliers_hold() -> None:
    to = advisor(interval=1)
    events: list[Any] = []
    tx = advised_tx()
    params, opt_state = PARAMS, tx.init(PARAMS)
    attachment = attaching(to, listeners=[events.append])(params, opt_state)
    train_step = train_step_of(tx)
    for i, batch in enumerate(batches(3)):
        opt_state = attachment.before_step(params, opt_state)
        params, opt_state, _ = train_step(params, opt_state, batch)
        params = attachment.after_step(params, opt_state, batch if i == 0 else "no batch")
    failed = [event for event in events if isinstance(event, Failed)]
    assert [(event.step, event.part) for event in failed] == [(1, StepPart.MEASUREMENT)]
    assert attachment.failures == 1
    assert multipliers_of(opt_state)["Dense_0.kernel"] == 2.0


def test_a_strict_start_raises_and_a_lenient_one_logs(caplog: pytest.LogCaptureFixture) -> None:
    class Away:
        def validate_layout(self, _: Any) -> Any:
            raise fslr.UnavailableError("out of reach")

        def open_run(self, _: Any) -> Any:
            return advisor()

    with pytest.raises(fslr.UnavailableError, match="out of reach"):
        train(advised_tx(), attaching(Away()))
    with caplog.at_level(logging.WARNING, logger="fslr"):
        trained = train(advised_tx(), attaching(Away(), strict=False), steps=1)
    assert "training starts without advice: out of reach" in caplog.text
    assert trained.attached.failures == 0


def test_the_advisor_refuses_a_model_that_does_not_match_the_profile() -> None:
    content = train(ADAMW, recording(), steps=1).attached.profile("MLP")
    params = {"other": PARAMS["Dense_0"], "third": PARAMS["Dense_1"]}
    tx = advised_tx()
    with pytest.raises(LayoutMismatchError, match=r"other\.kernel"):
        attaching(InProcessAdvisor(content))(params, tx.init(params))


def test_a_reported_loss_goes_with_the_next_measurement() -> None:
    to = advisor()
    tx = advised_tx()
    params, opt_state = PARAMS, tx.init(PARAMS)
    attachment = attaching(to)(params, opt_state)
    step = attachment.wrap(train_step_of(tx))
    losses = []
    for batch in batches(4):
        params, opt_state, loss = step(params, opt_state, batch)
        losses.append(float(loss))
        attachment.report_loss(loss)
    assert to.measurements[1].loss == pytest.approx(losses[2])


def test_state_is_json_and_a_resumed_training_equals_a_whole_one() -> None:
    tx = advised_tx()
    whole = train(tx, attaching(advisor(interval=2)), steps=6)

    def resumed(params: Any, opt_state: Any, state: Any, part: Any) -> Any:
        attachment = attaching(advisor(interval=2))(params, opt_state)
        if state is not None:
            attachment.load_state_dict(json.loads(json.dumps(state)))
        step = attachment.wrap(train_step_of(tx))
        for batch in part:
            params, opt_state, _ = step(params, opt_state, batch)
        return params, opt_state, attachment

    data = batches(6)
    params, opt_state, first = resumed(PARAMS, tx.init(PARAMS), None, data[:3])
    params, opt_state, second = resumed(params, opt_state, first.state_dict(), data[3:])
    assert_same(params, whole.params)
    assert second.state_dict() == whole.attached.state_dict()


def test_a_recorder_resumes_where_it_was() -> None:
    whole = train(ADAMW, recording(), steps=4).attached
    first = train(ADAMW, recording(), steps=2).attached
    second = train(ADAMW, recording(), steps=1).attached
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.step == 2
    assert [p.step for p in second.profile("MLP").points] == [0]
    assert whole.state_dict().keys() == second.state_dict().keys()


def test_a_state_of_a_different_model_is_refused() -> None:
    state = train(ADAMW, recording(), steps=1).attached.state_dict()
    other = {"a": jnp.ones((3, 2))}
    recorder = recording()(other, ADAMW.init(other))
    with pytest.raises(AttachError, match="a model with different groups"):
        recorder.load_state_dict(state)
    with pytest.raises(AttachError, match="has no entry 'loop'"):
        recorder.load_state_dict({})


@pytest.mark.compatibility("JAX", "weight decay")
def test_an_independent_policy_keeps_the_decay_where_the_transformation_knows_it() -> None:
    known = {"weight_decay": 0.5, "learning_rate": SCHEDULE}
    tx = optax.chain(optax.adamw(SCHEDULE, weight_decay=0.5), fslr.jax.scale_by_advice(**known))
    to = advisor(0.25, 0.25, 0.25, 0.25, rule=INDEPENDENT)
    events: list[Any] = []
    plain = train(tx, steps=1)
    advised = train(tx, attaching(to, listeners=[events.append]), steps=1)
    start = PARAMS["Dense_0"]["kernel"]
    decay = -2e-3 * 0.5 * start
    expected = 0.25 * (plain.params["Dense_0"]["kernel"] - start - decay) + decay
    np.testing.assert_allclose(
        advised.params["Dense_0"]["kernel"] - start, expected, rtol=1e-3, atol=1e-6
    )
    assert not any("does not know" in e.message for e in events if isinstance(e, Warned))


def test_an_independent_policy_warns_if_the_decay_is_not_known() -> None:
    events: list[Any] = []
    train(advised_tx(), attaching(advisor(rule=INDEPENDENT), listeners=[events.append]), steps=1)
    warned = [e for e in events if isinstance(e, Warned) and not e.is_hint]
    assert len(warned) == 1
    assert "scale_by_advice does not know it, so multipliers scale it; pass" in warned[0].message


def test_decay_is_left_out_of_measurements_where_it_is_known() -> None:
    known = {"weight_decay": 0.5, "learning_rate": SCHEDULE}
    tx = optax.chain(optax.adamw(SCHEDULE, weight_decay=0.5), fslr.jax.scale_by_advice(**known))
    without = optax.chain(optax.adam(SCHEDULE), fslr.jax.scale_by_advice(weight_decay=0))
    options = MeasuringOptions(estimator="exact", linearity=False, exclude_weight_decay=True)
    to, other = advisor(), advisor()
    train(tx, attaching(to, options=options), steps=1)
    train(without, attaching(other), steps=1)
    np.testing.assert_allclose(
        to.measurements[0].unit_rates, other.measurements[0].unit_rates, rtol=1e-2
    )
    assert to.measurements[0].excludes_weight_decay


def test_the_examples_of_a_measurement_are_limited() -> None:
    to = advisor()
    options = MeasuringOptions(estimator="exact", linearity=False, examples=4)
    train(advised_tx(), attaching(to, options=options), steps=1)
    assert to.measurements[0].examples == 4


def test_a_mask_is_named_in_measurements() -> None:
    to = advisor()

    def first_half(batch: Any, _outputs: Any) -> Any:
        return jnp.arange(len(batch[0])) < 4

    options = MeasuringOptions(estimator="exact", linearity=False, mask=first_half)
    train(advised_tx(), attaching(to, options=options), steps=1)
    assert to.measurements[0].mask == "first_half"


BAD: list[tuple[Any, Any, str]] = [
    ({}, None, "the parameters .dict. have no arrays"),
    ({"w": 1.0}, None, "the parameter w is 1.0 of type float; it must be an array"),
    ({"w": jnp.ones(2, int)}, None, "the parameter w has the type int32; only floating-point"),
    (
        {"a.b": jnp.ones(2), "a": {"b": jnp.ones(2)}},
        None,
        "two leaves of the parameters are called 'a.b'",
    ),
    (None, {"learning_rate": None}, "has no learning rate; pass attach.*learning_rate="),
    (
        None,
        {"learning_rate": "fast"},
        "learning_rate is 'fast'; it must be a number, or a",
    ),
    (None, {"learning_rate": -1.0}, "learning_rate is -1.0 at step 0"),
    (None, {"learning_rate": {"Dense_0": 1.0}}, "structure does not fit that of the parameters"),
    (None, {"stacked": {"blocks": 0}}, "stacked names 'blocks', which is not in the parameters"),
    (None, {"accumulate_steps": 0}, "accumulate_steps is 0; it must be at least 1"),
    (
        None,
        {"options": {"probes": 4}},
        r"options is {'probes': 4}; .* fslr.jax.MeasuringOptions, such as MeasuringOptions.probes",
    ),
    (None, {"options": {}}, r"options is {}; it must be a fslr.jax.MeasuringOptions"),
]


@pytest.mark.parametrize(("params", "options", "message"), BAD)
def test_bad_input_is_refused_before_the_first_step(
    params: Any, options: dict[str, Any] | None, message: str
) -> None:
    params = PARAMS if params is None else params
    tx = optax.sgd(1e-3)
    with pytest.raises(AttachError, match=message):
        recording(**(options or {}))(params, tx.init(params))


def test_a_transformation_or_a_number_in_place_of_state_and_function_is_refused() -> None:
    tx = advised_tx()
    with pytest.raises(AttachError, match=r"has no state; pass what tx.init\(params\) returned"):
        attaching(advisor())(PARAMS, tx)
    with pytest.raises(AttachError, match="apply_fn is a dict; it must be a function"):
        fslr.jax.Recorder({}, PARAMS, tx.init(PARAMS), learning_rate=1e-3)  # type: ignore[arg-type]
    with pytest.raises(AttachError, match="has no scale_by_advice; end the optimizer's chain"):
        attaching(advisor())(PARAMS, ADAMW.init(PARAMS))
    with pytest.raises(fslr.MeasurementError, match="estimator is 'kron'; it must be one of"):
        attaching(advisor(), options=MeasuringOptions(estimator="kron"))(PARAMS, tx.init(PARAMS))
    with pytest.raises(fslr.MeasurementError, match="examples is 0; it must be at least 1"):
        attaching(advisor(), options=MeasuringOptions(examples=0))(PARAMS, tx.init(PARAMS))
    with pytest.raises(fslr.MeasurementError, match="mask is a int; it must be a key"):
        attaching(advisor(), options=MeasuringOptions(mask=1))(  # type: ignore[arg-type]
            PARAMS, tx.init(PARAMS)
        )


def test_a_step_that_returns_no_parameters_and_state_is_refused() -> None:
    tx = advised_tx()
    attachment = attaching(advisor())(PARAMS, tx.init(PARAMS))
    step = attachment.wrap(lambda params, *_: params)
    with pytest.raises(AttachError, match="returned a dict; it must return a tuple that begins"):
        step(PARAMS, tx.init(PARAMS), batches(1)[0])

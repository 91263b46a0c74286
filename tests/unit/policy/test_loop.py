"""The loop of measuring, advising and training is stable, whatever rates do under it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import Measurements, Policy, PriorRule, recommend_all
from tests.simulated_advice import AdvisedTraining, SimulatedAdvisor, record
from tests.simulated_loops import (
    COSINE,
    DEFAULT_STD,
    EARLY_GROWTH,
    GPT2,
    PAIRS,
    RESTING,
    STEPS,
    UNBOUNDED,
    WARMUP_SPIKE,
    ZERO_PROJECTIONS,
    Pair,
    delays,
    disturbances,
    followed,
    half_prompt,
    off_ideal,
    stream_growth,
    windows,
)
from tests.simulated_training import Disturbance, plain_training


@given(
    pair=st.sampled_from(PAIRS),
    policy=st.builds(
        Policy,
        prior=st.sampled_from(PriorRule),
        correction_bound=st.sampled_from([1.0, 2.0, 16.0]),
        rise_limit=st.none() | st.just(1.5),
        slew_limit=st.none() | st.just(2.0),
        averaging_window=st.sampled_from([0.0, 0.5, 1.0]),
        max_relative_update=st.none() | st.just(2.0),
        dense_start_steps=st.sampled_from([0, 16]),
        reference_smoothing=st.sampled_from([0.0, 0.7]),
    ),
    base=disturbances(),
    run=disturbances(),
    delays=delays(),
)
def test_multipliers_are_finite_and_inside_their_bounds(
    pair: Pair,
    policy: Policy,
    base: Disturbance,
    run: Disturbance,
    delays: tuple[int | None, ...],
) -> None:
    trained = followed(pair, policy, base=base, run=run, delays=delays)
    assert np.isfinite(trained.multipliers).all()
    assert (trained.multipliers >= policy.min_multiplier).all()
    assert (trained.multipliers <= policy.max_multiplier).all()
    priors = trained.answers[0].priors
    if not priors.any():
        assert (trained.multipliers >= policy.min_multiplier_without_prior).all()
        assert (trained.multipliers <= policy.max_multiplier_without_prior).all()
    else:
        off_prior = trained.multipliers / priors
        assert off_prior.max() <= policy.correction_bound * (1 + 1e-9)
        if policy.max_relative_update is None:
            assert off_prior.min() >= 1 / policy.lower_correction_bound / (1 + 1e-9)


@given(
    pair=st.sampled_from(PAIRS),
    policy=st.sampled_from([Policy(), UNBOUNDED]),
    spikes=st.lists(windows(), max_size=2),
    delays=delays(),
)
def test_multipliers_settle_without_turning_once_the_model_rests(
    pair: Pair,
    policy: Policy,
    spikes: list[tuple[int, int, float]],
    delays: tuple[int | None, ...],
) -> None:
    """They approach the ratio from one side, ever more slowly: nothing swings."""
    run = Disturbance(spikes=tuple((at, min(until, 150), by) for at, until, by in spikes))
    trained = followed(
        pair, policy, schedule=RESTING, steps=2 * STEPS, run=run, delays=half_prompt(delays)
    )
    resting = np.log2(trained.multipliers[trained.steps >= 150])
    moves = np.diff(resting, axis=0)
    total, net = np.abs(moves).sum(axis=0), np.abs(resting[-1] - resting[0])
    np.testing.assert_allclose(total, net, atol=1e-6)
    if policy.prior is not PriorRule.NONE:
        assert np.abs(moves[-1]).max() < 0.5


def test_a_spike_lets_unbounded_multipliers_run_away() -> None:
    """A spike at the end of the base's warm-up raises the run's multipliers, and with them its
    stream, far above the base's.
    """
    for pair in (GPT2, DEFAULT_STD):
        trained = followed(pair, UNBOUNDED, base=WARMUP_SPIKE)
        assert off_ideal(pair, trained).max() > 3
        assert stream_growth(pair, trained).max() > 3
        assert stream_growth(pair, trained)[-1] > 2


def test_unbounded_multipliers_follow_a_reference_that_does_not_fall() -> None:
    """A profile of one point: rates fall as the run's stream grows, and multipliers rise for it."""
    base = plain_training(GPT2[0], COSINE, STEPS)
    profile = record(base, GPT2[0], UNBOUNDED, every=STEPS)
    trained = AdvisedTraining(GPT2[1], profile, COSINE, STEPS).run()
    largest = off_ideal(GPT2, trained).max(axis=1)
    assert largest[-1] > 5
    assert largest[-1] == largest.max()


def test_unbounded_multipliers_of_zero_projections_lock_in_below_the_ideal() -> None:
    pair = EARLY_GROWTH, replace(EARLY_GROWTH, width=192)
    trained = followed(pair, UNBOUNDED)
    projections = [name.endswith("proj.weight") for name in pair[1].names]
    assert off_ideal(pair, trained)[-1, projections].max() < -2
    assert stream_growth(pair, trained)[-1] < -2


@pytest.mark.parametrize("policy", [UNBOUNDED, Policy()])
def test_weights_behind_a_norm_remember_a_spike_only_if_multipliers_are_unbounded(
    policy: Policy,
) -> None:
    """The rate of normed weights falls as they grow, so nothing brings their norm back."""
    spike = Disturbance(spikes=((25, 50, 1e-3),))
    normed = [name.endswith("attn.qk.weight") for name in DEFAULT_STD[1].names]
    disturbed = followed(DEFAULT_STD, policy, run=spike).weight_rms[-1, normed]
    undisturbed = followed(DEFAULT_STD, policy).weight_rms[-1, normed]
    growth = np.log2(disturbed / undisturbed)
    if policy is UNBOUNDED:
        assert growth.min() > 3
    else:
        assert np.abs(growth).max() < 1


@given(
    pair=st.sampled_from([p for p in PAIRS if p[0].depth == p[1].depth]),
    prior=st.sampled_from(PriorRule),
    limit=st.sampled_from([1.0, 2.0, 4.0]),
    base=disturbances(),
    run=disturbances(),
)
def test_relative_updates_stay_below_their_limit(
    pair: Pair, prior: PriorRule, limit: float, base: Disturbance, run: Disturbance
) -> None:
    policy = Policy(prior=prior, max_relative_update=limit)
    trained = followed(pair, policy, base=base, run=run)
    plain = plain_training(pair[0], COSINE, STEPS)
    for row, step in enumerate(trained.steps.tolist()):
        # At the start some weights are 0. Between points the reference is interpolated.
        if step == 0 or step % 25:
            continue
        measured = [outcome.is_recommended for outcome in trained.answers[row].outcomes]
        moving = np.array(measured) & (trained.weight_rms[row] > 0)
        moving &= trained.multipliers[row] > policy.min_multiplier
        # The bound around the prior has the last word.
        lowest = trained.answers[row].priors / policy.lower_correction_bound
        highest = np.maximum(limit * trained.weight_rms[row] / plain.weight_rms[step], lowest)
        assert (trained.multipliers[row, moving] <= highest[moving] * (1 + 1e-5)).all()


@given(pair=st.sampled_from(PAIRS), start=st.integers(1, 100), group=st.integers(0, 26))
def test_a_group_whose_rate_vanishes_keeps_its_multiplier_until_the_rate_returns(
    pair: Pair, start: int, group: int
) -> None:
    name = pair[1].names[group]
    gone = Disturbance(vanishing=((start, start + 60, name),))
    trained = followed(pair, Policy(), run=gone)
    vanished = (trained.steps >= start) & (trained.steps < start + 60)
    own = [g for g, other in enumerate(pair[1].names) if other.endswith(name)]
    for row in np.flatnonzero(vanished):
        held = trained.measurements[row].multipliers[own]
        assert trained.multipliers[row, own].tolist() == held.tolist()
    returned = int(np.flatnonzero(trained.steps >= start + 60)[0])
    assert all(trained.answers[returned].outcomes[g].is_recommended for g in own)


@pytest.mark.parametrize("policy", [Policy(), UNBOUNDED])
def test_groups_that_move_after_zero_projections_are_advised_as_soon_as_they_do(
    policy: Policy,
) -> None:
    """Zero projections have rates at once. What feeds them has a rate once they have moved."""
    trained = followed(ZERO_PROJECTIONS, policy)
    assert trained.steps[:2].tolist() == [0, 1]
    first, second = (
        [outcome.is_recommended for outcome in answer.outcomes] for answer in trained.answers[:2]
    )
    assert not all(first)
    assert all(second)


@pytest.mark.parametrize("policy", [Policy(), UNBOUNDED])
def test_a_group_that_never_moves_costs_few_measurements(policy: Policy) -> None:
    never = Disturbance(vanishing=((0, STEPS, "blocks.1.mlp.up.weight"),))
    trained, usual = followed(GPT2, policy, run=never), followed(GPT2, policy)
    assert len(trained.steps) <= len(usual.steps) + 6


@given(
    pair=st.sampled_from(PAIRS),
    policy=st.sampled_from([Policy(), UNBOUNDED]),
    power=st.integers(-40, 40),
    base=disturbances(),
)
def test_scaling_all_outputs_of_base_and_run_changes_nothing(
    pair: Pair, policy: Policy, power: int, base: Disturbance
) -> None:
    factor = (0, STEPS, 2.0**power)
    base = replace(base, spikes=(), noise=0.0)
    scaled = replace(base, spikes=(factor,))
    once = followed(pair, policy, base=base)
    again = followed(pair, policy, base=scaled, run=Disturbance(spikes=(factor,)))
    assert again.steps.tolist() == once.steps.tolist()
    np.testing.assert_allclose(again.multipliers, once.multipliers, rtol=1e-5)


@given(pair=st.sampled_from(PAIRS), factor=st.sampled_from([0.125, 0.5, 2.0, 8.0]))
def test_scaling_the_outputs_of_the_run_divides_multipliers_up_to_their_bound(
    pair: Pair, factor: float
) -> None:
    """The rates of a model at rest do not change, so each multiplier has its own ratio."""
    still = replace(COSINE, rest_step=0)
    for policy in (Policy(averaging_window=0.0), UNBOUNDED):
        once = followed(pair, policy, schedule=still)
        scaled = Disturbance(spikes=((0, STEPS, factor),))
        again = followed(pair, policy, schedule=still, run=scaled)
        expected = once.answers[0].ratios / factor
        priors = once.answers[0].priors
        if priors.any():
            bound, lower = policy.correction_bound, policy.lower_correction_bound
            expected = np.clip(expected, priors / lower, priors * bound)
        moved = once.answers[0].ratios > 0
        np.testing.assert_allclose(again.multipliers[0, moved], expected[moved], rtol=1e-9)


@given(
    pair=st.sampled_from(PAIRS),
    base=disturbances(),
    runs=st.lists(disturbances(), min_size=2, max_size=2),
)
def test_answers_of_a_batch_equal_those_of_each_run(
    pair: Pair, base: Disturbance, runs: list[Disturbance]
) -> None:
    profile = record(plain_training(pair[0], COSINE, STEPS), pair[0], Policy(), disturbance=base)
    trained = [AdvisedTraining(pair[1], profile, COSINE, STEPS, run).run() for run in runs]
    advisor = SimulatedAdvisor(profile, pair[1].layout)
    for row in range(min(len(each.steps) for each in trained)):
        batch = recommend_all(
            profile,
            advisor.reference,
            advisor.mapping,
            profile.policy,
            Measurements.of([each.measurements[row] for each in trained]),
            priors=advisor.priors,
        )
        for run, each in enumerate(trained):
            assert batch.row(run).multipliers.tolist() == each.answers[row].multipliers.tolist()
            assert batch.row(run).outcomes == each.answers[row].outcomes
            assert batch.next_measurement_steps[run] == each.answers[row].next_measurement_step

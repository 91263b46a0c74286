"""The loop of measuring, advising and training is stable, whatever rates do under it."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import Measurements, Policy, PriorRule, recommend_all
from tests.simulated_training import (
    NO_DISTURBANCE,
    AdvisedTraining,
    Disturbance,
    Floats,
    Schedule,
    SimulatedAdvisor,
    SimulatedClient,
    SimulatedModel,
    Trajectory,
    plain_training,
    record,
)

STEPS = 300
COSINE = Schedule(cosine_steps=STEPS)
RESTING = Schedule(rest_step=150)
Pair = tuple[SimulatedModel, SimulatedModel]

GPT2 = SimulatedModel(48), SimulatedModel(192)
SHARED_STD = SimulatedModel(48, hidden_std=0.04, projection_std=0.016), SimulatedModel(192)
ZERO_PROJECTIONS = SimulatedModel(48, projection_std=0.0), SimulatedModel(192, projection_std=0.0)
DEFAULT_STD = (
    SimulatedModel(48, 3, 1.0, 0.08, 0.08, 0.08),
    SimulatedModel(192, 3, 1.0, 0.04, 0.04, 0.04),
)
DECAYED = SimulatedModel(48, weight_decay=2.0), SimulatedModel(192, weight_decay=2.0)
NARROWER = SimulatedModel(192), SimulatedModel(48)
DEEPER = SimulatedModel(48), SimulatedModel(96, depth=6)
PAIRS = (GPT2, SHARED_STD, ZERO_PROJECTIONS, DEFAULT_STD, DECAYED, NARROWER, DEEPER)
# The stream grows by what the very first steps add to it, and hardly any more after them.
EARLY_GROWTH = SimulatedModel(48, projection_std=0.0, common_direction=0.2, common_steps=5.0)

# What the policy was before it knew priors: no bound that a training ever reaches.
UNBOUNDED = Policy(
    prior=PriorRule.NONE,
    min_multiplier_without_prior=2.0**-10,
    max_multiplier_without_prior=2.0**10,
    averaging_window=0.0,
)
WARMUP_SPIKE = Disturbance(spikes=((25, 50, 10.0),))


@functools.cache
def followed(
    pair: Pair,
    policy: Policy,
    *,
    schedule: Schedule = COSINE,
    steps: int = STEPS,
    base: Disturbance = NO_DISTURBANCE,
    run: Disturbance = NO_DISTURBANCE,
    delays: tuple[int | None, ...] = (0,),
    checkpoint: SimulatedClient | None = None,
) -> Trajectory:
    """Return a training that follows the profile of its base, recorded over the same steps.

    Results are cached and must not be changed.
    """
    recorded = plain_training(pair[0], schedule, steps)
    profile = record(recorded, pair[0], policy, disturbance=base)
    return AdvisedTraining(
        pair[1], profile, schedule, steps, run, delays=delays, checkpoint=checkpoint
    ).run()


def off_ideal(pair: Pair, trained: Trajectory) -> Floats:
    """Return the logarithms to base 2 of multipliers over the ideal ones, [points, groups]."""
    return np.log2(trained.multipliers / pair[1].ideal_multipliers(pair[0]))


def stream_growth(pair: Pair, trained: Trajectory, schedule: Schedule = COSINE) -> Floats:
    """Return the logarithms to base 2 of the run's stream over the base's, shape [points]."""
    base = plain_training(pair[0], schedule, int(trained.steps[-1]) + 1)
    return np.log2(trained.stream_rms / base.stream_rms[trained.steps])


def windows() -> st.SearchStrategy[tuple[int, int, float]]:
    factor = st.sampled_from([1e-30, 1e-3, 0.1, 10.0, 1e3, 1e30])
    return st.builds(
        lambda at, width, by: (at, at + width, by),
        st.integers(0, 250),
        st.sampled_from([1, 25, 50]),
        factor,
    )


def vanishings() -> st.SearchStrategy[tuple[int, int, str]]:
    suffix = st.sampled_from(["proj.weight", "bias", "attn.v.weight", "tokens.weight", "weight"])
    return st.builds(
        lambda at, width, name: (at, at + width, name),
        st.integers(0, 250),
        st.sampled_from([1, 30, 100, 300]),
        suffix,
    )


def disturbances() -> st.SearchStrategy[Disturbance]:
    return st.builds(
        Disturbance,
        noise=st.sampled_from([0.0, 0.3, 1.0]),
        seed=st.integers(0, 100),
        spikes=st.lists(windows(), max_size=2).map(tuple),
        drift=st.sampled_from([0.0, -0.5, 0.5, 1.0]),
        vanishing=st.lists(vanishings(), max_size=2).map(tuple),
        relative_error=st.sampled_from([0.0, 0.1, 0.6]),
    )


def half_prompt(delays: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Return delays where every second answer arrives at once."""
    return tuple(part for delay in delays for part in (delay, 0))


def delays() -> st.SearchStrategy[tuple[int | None, ...]]:
    delay = st.none() | st.integers(0, 10)
    return st.lists(delay, min_size=1, max_size=5).map(tuple)


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


@given(pair=st.sampled_from(PAIRS), base=disturbances(), run=disturbances(), delays=delays())
def test_by_default_the_stream_neither_runs_away_nor_stops(
    pair: Pair, base: Disturbance, run: Disturbance, delays: tuple[int | None, ...]
) -> None:
    """Whatever is measured, the run's stream grows at most eight times as far as the base's.

    It may grow less, by more: multipliers may fall further below their priors than they may rise
    above them, and the priors of a deeper model are lower.
    """
    growth = stream_growth(pair, followed(pair, Policy(), base=base, run=run, delays=delays))
    assert growth.max() < 3
    assert growth.min() > -5


@pytest.mark.parametrize("spike", [0.1, 10.0, 1e6, 1e-6])
@pytest.mark.parametrize("pair", [GPT2, SHARED_STD, DEFAULT_STD, ZERO_PROJECTIONS])
def test_by_default_a_spike_at_the_end_of_the_warmup_does_no_harm(pair: Pair, spike: float) -> None:
    disturbed = Disturbance(spikes=((25, 50, spike),))
    undisturbed = stream_growth(pair, followed(pair, Policy()))[-1]
    for one in (
        followed(pair, Policy(), base=disturbed),
        followed(pair, Policy(), run=disturbed),
    ):
        assert off_ideal(pair, one).max() <= 1.001
        assert off_ideal(pair, one).min() >= -2.001
        assert abs(stream_growth(pair, one)[-1] - undisturbed) < 2


@given(
    pair=st.sampled_from(PAIRS),
    spike=windows(),
    in_base=st.booleans(),
    rest_step=st.sampled_from([0, None]),
)
def test_by_default_a_spike_of_any_size_is_forgotten(
    pair: Pair, spike: tuple[int, int, float], in_base: bool, rest_step: int | None
) -> None:
    """Of a model at rest little remains. One in training keeps what its weights did meanwhile."""
    schedule = replace(COSINE, rest_step=rest_step)
    start = min(spike[0], 150)
    spikes = Disturbance(spikes=((start, start + 25, spike[2]),))
    base, run = (spikes, NO_DISTURBANCE) if in_base else (NO_DISTURBANCE, spikes)
    disturbed = followed(pair, Policy(), schedule=schedule, steps=2 * STEPS, base=base, run=run)
    undisturbed = followed(pair, Policy(), schedule=schedule, steps=2 * STEPS)
    apart = np.log2(disturbed.multipliers[-1] / undisturbed.multipliers[-1])
    assert np.abs(apart).max() < (0.3 if rest_step == 0 else 1.6)
    assert abs(np.log2(disturbed.stream_rms[-1] / undisturbed.stream_rms[-1])) < 2.5


@given(pair=st.sampled_from(PAIRS), delays=delays())
def test_by_default_late_and_lost_answers_change_little(
    pair: Pair, delays: tuple[int | None, ...]
) -> None:
    prompt = followed(pair, Policy())
    late = followed(pair, Policy(), delays=half_prompt(delays))
    assert np.abs(np.log2(late.multipliers[-1] / prompt.multipliers[-1])).max() < 0.5
    assert abs(np.log2(late.stream_rms[-1] / prompt.stream_rms[-1])) < 0.5


@given(
    pair=st.sampled_from(PAIRS),
    stale=st.sampled_from([2.0**-10, 0.1, 10.0, 2.0**10]),
    was_advised=st.booleans(),
)
def test_by_default_multipliers_of_an_old_checkpoint_return_to_the_priors(
    pair: Pair, stale: float, *, was_advised: bool
) -> None:
    """A checkpoint of an earlier policy may hold multipliers that have run away."""
    groups = len(pair[1].names)
    checkpoint = SimulatedClient(np.full(groups, stale), np.full(groups, was_advised))
    trained = followed(pair, Policy(), checkpoint=checkpoint)
    off_prior = np.abs(np.log2(trained.multipliers / trained.answers[0].priors))
    measured = np.array([
        [outcome.is_recommended for outcome in answer.outcomes] for answer in trained.answers
    ])
    assert off_prior[measured].max() <= 2 + 1e-9


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


@pytest.mark.parametrize("pair", [p for p in PAIRS if p[0].depth == p[1].depth])
@pytest.mark.parametrize("base", [NO_DISTURBANCE, WARMUP_SPIKE])
def test_by_default_relative_updates_stay_near_those_of_the_base(
    pair: Pair, base: Disturbance
) -> None:
    trained = followed(pair, Policy(), base=base)
    plain = plain_training(pair[0], COSINE, STEPS)
    later = trained.steps > 0  # biases and zero projections start at 0
    base_rms = plain.weight_rms[trained.steps[later]]
    relative = np.log2(trained.multipliers[later] * base_rms / trained.weight_rms[later])
    assert np.abs(relative).max() < 2.5

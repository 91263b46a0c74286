"""Under the default policy, disturbances do no lasting harm to an advised training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import Policy
from tests.simulated_advice import SimulatedClient
from tests.simulated_loops import (
    COSINE,
    DEFAULT_STD,
    GPT2,
    PAIRS,
    SHARED_STD,
    STEPS,
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
from tests.simulated_training import NO_DISTURBANCE, Disturbance, plain_training


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

"""Pairs of simulated models, and what may happen to a run that follows one of them."""

from __future__ import annotations

import functools

import numpy as np
from hypothesis import strategies as st

from advisor.policy import Policy, PriorRule
from tests.simulated_advice import AdvisedTraining, SimulatedClient, record
from tests.simulated_training import (
    NO_DISTURBANCE,
    Disturbance,
    Floats,
    Schedule,
    SimulatedModel,
    Trajectory,
    plain_training,
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

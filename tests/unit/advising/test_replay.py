"""Replaying a recorded run: its own policy gives bit-identical answers, others their own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.advising.advice import Advice
from advisor.advising.opening import Opening
from advisor.advising.replay import AnsweredMeasurement, replay
from advisor.advising.resolved_profile import LoadedProfile, ResolvedProfile
from advisor.local.in_process import InProcessAdvisor
from advisor.policy import DepthRule, Layout, Measurement, Policy, Reference
from advisor.registry.profiles import VersionInfo
from advisor.registry.resource_names import ProfileReference
from advisor.wire import (
    content_from_proto,
    measurement_from_proto,
    opening_from_proto,
    policy_to_proto,
)
from fslr.advisor.v1 import advisor_service_pb2 as pb
from tests.building import content_message, layout_message
from tests.unit.policy.test_recommend import POLICIES

NAMES = ["embed.weight", *(f"blocks.{i}.up.weight" for i in range(5)), "head.weight"]
REFERENCE = ProfileReference.parse("profile", "projects/default/profiles/x")
CONTENT = content_from_proto(content_message())
PROFILE = CONTENT.profile()
LOADED = LoadedProfile(
    VersionInfo(REFERENCE.name, 1, "0" * 64, CONTENT.header.provenance.record_time),  # type: ignore[arg-type]
    PROFILE,
    Reference(PROFILE),
)
OPENING = Opening(REFERENCE, Layout.of_names(NAMES))

RATES = st.lists(
    st.one_of(st.just(0.0), st.floats(2.0**-10, 2.0**10, width=32)),
    min_size=len(NAMES),
    max_size=len(NAMES),
)
ERRORS = st.floats(0, 0.625, width=32)
EVENTS = st.lists(st.tuples(RATES, ERRORS, st.integers(0, 2)), min_size=1, max_size=6)


def recorded(
    policy: Policy, events: list[tuple[list[float], float, int]]
) -> list[AnsweredMeasurement]:
    """Return the history of a run whose answers are late by a number of measurements."""
    advice = Advice(
        ResolvedProfile(LOADED), Opening(OPENING.profile, OPENING.layout, policy=policy)
    )
    history: list[AnsweredMeasurement] = []
    advised: list[np.ndarray[tuple[int], np.dtype[np.bool_]]] = []
    for step, (rates, error, late) in enumerate(events):
        known = max(len(history) - late, min(len(history), 1))
        measurement = Measurement(
            10 * step,
            np.array(rates),
            np.full(len(NAMES), error),
            history[known - 1].multipliers if known else np.ones(len(NAMES)),
            interval_steps=10 if step else 0,
            advised=advised[-1] if advised else np.zeros(len(NAMES), dtype=np.bool_),
        )
        answer = advice.recommend(measurement)
        there = np.array([o.value in {"matched", "clamped", "limited"} for o in answer.outcomes])
        advised.append(there | advised[-1] if advised else there)
        history.append(
            AnsweredMeasurement(measurement, answer.multipliers, answer.next_measurement_step)
        )
    return history


@given(EVENTS, POLICIES, st.sampled_from([DepthRule.SUM, DepthRule.SQRT, DepthRule.COPY]))
def test_the_same_policy_gives_bit_identical_answers(
    events: list[tuple[list[float], float, int]], policy: Policy, rule: DepthRule
) -> None:
    policy = dataclasses.replace(policy, depth_rule=rule)
    history = recorded(policy, events)
    for one in replay(LOADED, OPENING, history, policy):
        assert one.after.multipliers.tolist() == one.before.multipliers.tolist()
        assert one.after.next_measurement_step == one.before.next_measurement_step
        assert (one.changed, one.largest_factor) == (0, 1.0)


def test_a_different_policy_continues_from_its_own_answers() -> None:
    events = [([1.0] * len(NAMES), 0.0, 0), ([0.001] * len(NAMES), 0.0, 0)] * 2
    policy = Policy(
        max_multiplier=1000.0, max_multiplier_without_prior=1000.0, averaging_window=0.0
    )
    history = recorded(policy, events)
    slow = replay(LOADED, OPENING, history, dataclasses.replace(policy, slew_limit=2.0))
    head = [one.after.multipliers[-1] for one in slow]
    assert head == pytest.approx([4.0, 8.0, 4.0, 8.0])  # from 8, not from the run's 1000
    assert slow[1].before.multipliers[-1] == 1000.0
    assert slow[1].largest_factor == pytest.approx(500.0)  # the embedding: 1000 and 2


def test_an_observing_run_keeps_its_recorded_multipliers() -> None:
    policy = Policy(slew_limit=1.5)
    ones, rates = np.ones(len(NAMES)), np.ones(len(NAMES))
    advice = Advice(
        ResolvedProfile(LOADED), Opening(OPENING.profile, OPENING.layout, policy=policy)
    )
    history = []
    for step in range(3):
        measurement = Measurement(step, rates, ones * 0, ones, interval_steps=min(step, 1))
        answer = advice.recommend(measurement)
        history.append(
            AnsweredMeasurement(measurement, answer.multipliers, answer.next_measurement_step)
        )
    assert all(one.changed == 0 for one in replay(LOADED, OPENING, history, policy))
    # The held first answer equals the multipliers in force, although the run follows no answer.
    held = Measurement(0, rates, ones * 0.6, ones)
    answer = Advice(ResolvedProfile(LOADED), OPENING).recommend(held)
    assert answer.multipliers.tolist() == ones.tolist()
    later = [Measurement(s, rates, ones * 0.6, ones, interval_steps=1) for s in (10, 20)]
    history = [AnsweredMeasurement(m, answer.multipliers, m.step + 1) for m in (held, *later)]
    other = Policy(max_relative_error=0.7, freeze_after_step=10)
    observing = dataclasses.replace(OPENING, observe_only=True)
    multipliers = [one.after.multipliers[-1] for one in replay(LOADED, observing, history, other)]
    assert multipliers == [4.0, 1.0, 1.0]


@given(EVENTS, POLICIES)
def test_answers_through_messages_are_bit_identical_to_those_of_plain_arrays(
    events: list[tuple[list[float], float, int]], policy: Policy
) -> None:
    opening = pb.RunOpening(
        profile=str(REFERENCE), layout=layout_message(NAMES), policy=policy_to_proto(policy)
    )
    session = InProcessAdvisor(content_message()).open_run(opening)
    for answered in recorded(policy, events):
        own = answered.measurement
        message = pb.Measurement(
            step=own.step,
            unit_rates=own.unit_rates,
            relative_errors=own.relative_errors,
            multipliers=own.multipliers,
            interval_steps=own.interval_steps,
            advised=own.advised,
        )
        again = pb.Measurement.FromString(message.SerializeToString())
        assert measurement_from_proto(
            again, opening_from_proto(opening)
        ).unit_rates.tolist() == list(own.unit_rates)
        answer = session.recommend(again)
        assert list(answer.multipliers) == answered.multipliers.tolist()
        assert answer.next_measurement_step == answered.next_measurement_step

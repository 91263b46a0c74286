"""What is answered together is answered, byte by byte, as each would be alone."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.advising.advice import Advice, LoadedProfile, Opening, ResolvedProfile
from advisor.policy import Alignment, InvalidValueError, Measurements, Policy, Reference
from advisor.registry.profiles import VersionInfo
from advisor.registry.resource_names import ProfileName
from advisor.wire import Answer, RecommendationRequest, answer, answers, content_from, opening_from
from advisor.wire.packed import repacked
from benchmarks.rpc.payload import measurements, opening, profile
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2

GROUPS = 20


def _advice(policy: Policy | None = None, **changes: Any) -> tuple[Advice, Opening]:
    content = content_from(profile(GROUPS))
    info = VersionInfo(ProfileName("bench", "load"), 1, "0" * 64, datetime(2026, 1, 1, tzinfo=UTC))
    loaded = LoadedProfile(
        info, content.profile(), Reference(content.profile()), content.header.provenance
    )
    opened = dataclasses.replace(opening_from(opening("run", GROUPS)), policy=policy, **changes)
    return Advice(ResolvedProfile(loaded), opened), opened


def _alone(advice: Advice, opened: Opening, message: pb.Measurement) -> bytes | str:
    try:
        return answer(advice, opened, message).SerializeToString()
    except InvalidValueError as error:
        return str(error)


def _together(asks: list[RecommendationRequest]) -> list[bytes | str]:
    return [found.encoded if isinstance(found, Answer) else str(found) for found in answers(asks)]


def _changed(message: pb.Measurement, kind: int) -> pb.Measurement:
    changed = pb.Measurement()
    changed.CopyFrom(message)
    match kind:
        case 1:
            changed.unit_rates[3] = 0.0
        case 2:
            changed.interval_steps = 0
        case 3:
            changed.ClearField("multipliers")
        case 4:
            changed.unit_rates[2] = math.nan
        case 5:
            changed.shares.append(0.5)
        case 6:
            changed.ClearField("linearity_error")
        case 7:
            changed.step = -1
        case 8:
            changed.relative_errors[0] = 3.0
        case 9:
            changed.step = 25  # on a point of the profile
        case _:
            pass
    return changed


POLICIES = (
    Policy(),
    Policy(slew_limit=1.5, max_linearity_error=0.05, target_relative_error=0.05),
    Policy(first_step_only=True, freeze_after_step=100, max_multiplier=1.5),
    Policy(alignment=Alignment.PROGRESS, min_rate_ratio=0.5, weigh_by_confidence=False),
)


@given(
    policy=st.sampled_from(POLICIES),
    kinds=st.lists(st.integers(0, 9), min_size=1, max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_each_answer_is_the_one_that_it_would_be_alone(policy: Policy, kinds: list[int]) -> None:
    advice, opened = _advice(policy)
    data = measurements(GROUPS)
    messages = [_changed(data[i % len(data)], kind) for i, kind in enumerate(kinds)]
    asks = [RecommendationRequest(advice, opened, repacked(message)) for message in messages]
    assert _together(asks) == [_alone(advice, opened, message) for message in messages]


def test_an_answer_says_which_multipliers_were_recommended() -> None:
    advice, opened = _advice()
    message = _changed(measurements(GROUPS)[0], 1)  # group 3 measured a rate of zero
    found = answer(advice, opened, message)
    held = [i for i, flag in enumerate(found.recommended) if not flag]
    assert found.outcomes[3] == policy_pb2.OUTCOME_HELD_ZERO_RATE
    assert held == [
        i
        for i, outcome in enumerate(found.outcomes)
        if policy_pb2.Outcome.Name(outcome).startswith(("OUTCOME_HELD", "OUTCOME_UNMATCHED"))
    ]
    assert len(found.recommended) == GROUPS
    assert 3 in held
    assert len(held) < GROUPS


def test_who_cannot_be_answered_is_told_alone() -> None:
    advice, opened = _advice(Policy(alignment=Alignment.PROGRESS))
    unplanned = dataclasses.replace(opened, total_steps=0)
    message = measurements(GROUPS)[0]
    found = answers([
        RecommendationRequest(advice, opened, repacked(message)),
        RecommendationRequest(advice, unplanned, repacked(message)),
    ])
    assert isinstance(found[0], Answer)
    with pytest.raises(InvalidValueError, match="planned number of steps"):
        raise found[1]  # type: ignore[misc]


def test_more_than_fit_the_cache_are_answered_in_order() -> None:
    advice, opened = _advice()
    data = measurements(GROUPS)
    messages = [data[i % len(data)] for i in range(2**14 // GROUPS + 5)]
    found = _together([
        RecommendationRequest(advice, opened, repacked(message)) for message in messages
    ])
    assert found == [_alone(advice, opened, data[i % len(data)]) for i in range(len(messages))]


def test_runs_of_one_plan_share_it_and_others_do_not() -> None:
    advice, opened = _advice()
    other, _ = _advice(Policy(slew_limit=2.0))
    assert advice.plan != other.plan
    rows = Measurements.of([
        dataclasses.replace(one)
        for one in [_measured(opened, message) for message in measurements(GROUPS)]
    ])
    together = advice.recommend_all(rows)
    for i, message in enumerate(measurements(GROUPS)):
        alone = advice.recommend(_measured(opened, message))
        assert np.array_equal(together.row(i).multipliers, alone.multipliers)
        assert together.row(i).outcomes == alone.outcomes


def _measured(opened: Opening, message: pb.Measurement) -> Any:
    from advisor.wire import measurement_from

    return measurement_from(message, opened)


def test_a_defect_of_answering_together_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    advice, opened = _advice()
    asks = [
        RecommendationRequest(advice, opened, repacked(message))
        for message in measurements(GROUPS)[:2]
    ]
    alone = _together(asks[:1]) + _together(asks[1:])
    whole = Advice.recommend_all

    def only_one(self: Advice, measured: Any) -> Any:
        if len(measured.steps) > 1:
            raise MemoryError("no room for all of them")
        return whole(self, measured)

    monkeypatch.setattr(Advice, "recommend_all", only_one)
    assert _together(asks) == alone

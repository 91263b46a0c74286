"""A measurement gets the same answer, byte by byte, in a batch, on its own and in process."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.advising.advice import Advice
from advisor.advising.opening import Opening
from advisor.advising.resolved_profile import LoadedProfile, ResolvedProfile
from advisor.policy import (
    Alignment,
    InvalidValueError,
    Measurements,
    Policy,
    Recommendations,
    Reference,
)
from advisor.registry.profiles import VersionInfo
from advisor.registry.resource_names import ProfileName
from advisor.wire import (
    Answer,
    RecommendationRequest,
    answer,
    answer_batch,
    content_from_proto,
    measurement_from_proto,
    opening_from_proto,
    packed,
)
from benchmarks.rpc.payload import measurements, opening, profile
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2
from tests.unit.wire.strategies import any_measurements

GROUPS = 20


def _advice(policy: Policy | None = None, **changes: Any) -> tuple[Advice, Opening]:
    content = content_from_proto(profile(GROUPS))
    info = VersionInfo(ProfileName("bench", "load"), 1, "0" * 64, datetime(2026, 1, 1, tzinfo=UTC))
    loaded = LoadedProfile(
        info, content.profile(), Reference(content.profile()), content.header.provenance
    )
    opened = dataclasses.replace(
        opening_from_proto(opening("run", GROUPS)), policy=policy, **changes
    )
    return Advice(ResolvedProfile(loaded), opened), opened


def _request(advice: Advice, opened: Opening, message: pb.Measurement) -> RecommendationRequest:
    return RecommendationRequest(
        advice, opened, packed.Measurement.FromString(message.SerializeToString())
    )


def _answered_in_process(advice: Advice, opened: Opening, message: pb.Measurement) -> bytes | str:
    try:
        return answer(advice, opened, message).SerializeToString()
    except InvalidValueError as error:
        return str(error)


def _raise(error: Exception) -> None:
    raise error


def _answered(
    requests: list[RecommendationRequest], on_defect: Callable[[Exception], None] = _raise
) -> list[bytes | str]:
    return [
        found.encoded if isinstance(found, Answer) else str(found)
        for found in answer_batch(requests, on_defect=on_defect)
    ]


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
            _add_rms(changed, kind)
    return changed


def _add_rms(message: pb.Measurement, kind: int) -> None:
    match kind:
        case 10:
            message.weight_rms.extend([0.5] * GROUPS)
            message.update_rms.extend([2.0] * GROUPS)
        case 11:
            message.update_rms.extend([1.0] * (GROUPS - 1) + [-1.0])
        case 12:
            message.weight_rms.extend([0.0] * GROUPS)
            message.excludes_weight_decay = True
            message.mask = "attention_mask"
        case _:
            pass


POLICIES = (
    Policy(),
    Policy(slew_limit=1.5, max_linearity_error=0.05, target_relative_error=0.05),
    Policy(first_step_only=True, freeze_after_step=100, max_multiplier=1.5),
    Policy(alignment=Alignment.PROGRESS, min_rate_ratio=0.5, weigh_by_confidence=False),
)


@given(
    policy=st.sampled_from(POLICIES),
    kinds=st.lists(st.integers(0, 12), min_size=1, max_size=8),
)
def test_answers_in_a_batch_and_in_process_are_bit_identical(
    policy: Policy, kinds: list[int]
) -> None:
    advice, opened = _advice(policy)
    data = measurements(GROUPS)
    messages = [_changed(data[i % len(data)], kind) for i, kind in enumerate(kinds)]
    requests = [_request(advice, opened, message) for message in messages]
    one_by_one = [_answered([request])[0] for request in requests]
    assert _answered(requests) == one_by_one
    assert one_by_one == [_answered_in_process(advice, opened, message) for message in messages]


@given(policy=st.sampled_from(POLICIES), messages=st.lists(any_measurements(GROUPS), min_size=1))
def test_any_measurement_gets_the_same_answer_or_error_in_a_batch_and_in_process(
    policy: Policy, messages: list[pb.Measurement]
) -> None:
    advice, opened = _advice(policy)
    requests = [_request(advice, opened, message) for message in messages]
    in_process = [_answered_in_process(advice, opened, message) for message in messages]
    assert _answered(requests) == in_process


def test_measurements_with_and_without_rms_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    advice, opened = _advice()
    plain = measurements(GROUPS)[0]
    requests = [_request(advice, opened, _changed(plain, kind)) for kind in (0, 10, 12)]
    seen: list[Measurements] = []
    recommend_all = advice.recommend_all

    def seeing(measured: Measurements) -> Recommendations:
        seen.append(measured)
        return recommend_all(measured)

    monkeypatch.setattr(advice, "recommend_all", seeing)
    _answered(requests)
    (batch,) = seen
    rows = [batch.row(i) for i in range(3)]
    assert [row.excludes_weight_decay for row in rows] == [False, False, True]
    assert [row.mask for row in rows] == ["", "", "attention_mask"]
    assert rows[0].weight_rms is rows[0].update_rms is rows[2].update_rms is None
    assert rows[1].weight_rms is not None
    assert rows[1].weight_rms.tolist() == [0.5] * GROUPS
    assert rows[1].update_rms is not None
    assert rows[1].update_rms.tolist() == [2.0] * GROUPS
    assert rows[2].weight_rms is not None
    assert rows[2].weight_rms.tolist() == [0.0] * GROUPS
    again = Measurements.of(rows)
    assert again.weight_rms is not None
    np.testing.assert_array_equal(again.weight_rms, batch.weight_rms)


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("weight_rms", [1.0] * (GROUPS - 1), r"measurement\.weight_rms: 19 entries"),
        ("update_rms", [1.0] * (GROUPS - 1) + [-1.0], r"measurement\.update_rms\[19\]: -1\.0"),
        ("weight_rms", [math.inf] * GROUPS, r"measurement\.weight_rms\[0\]: inf"),
    ],
)
def test_rms_out_of_range_are_refused_with_the_field_s_path(
    field: str, values: list[float], message: str
) -> None:
    advice, opened = _advice()
    measurement = _changed(measurements(GROUPS)[0], 0)
    getattr(measurement, field).extend(values)
    with pytest.raises(InvalidValueError, match=message):
        answer(advice, opened, measurement)


@pytest.mark.parametrize(
    ("interval_steps", "excludes", "warns"), [(0, True, True), (0, False, False), (25, True, False)]
)
def test_a_run_is_warned_once_if_only_it_measures_without_weight_decay(
    interval_steps: int, excludes: bool, warns: bool
) -> None:
    advice, opened = _advice()
    message = _changed(measurements(GROUPS)[0], 0)
    message.interval_steps = interval_steps
    message.excludes_weight_decay = excludes
    kinds = [warning.kind for warning in answer(advice, opened, message).warnings]
    assert (pb.WARNING_KIND_WEIGHT_DECAY in kinds) == warns


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


def test_an_invalid_measurement_of_a_batch_is_the_only_one_refused() -> None:
    advice, opened = _advice(Policy(alignment=Alignment.PROGRESS))
    unplanned = dataclasses.replace(opened, total_steps=0)
    message = measurements(GROUPS)[0]
    requests = [_request(advice, opened, message), _request(advice, unplanned, message)]
    # The batch cannot be answered at once; that is expected, so it is not reported as a defect.
    found = answer_batch(requests, on_defect=_raise)
    assert isinstance(found[0], Answer)
    assert found[0].encoded == _answered_in_process(advice, opened, message)
    with pytest.raises(InvalidValueError, match="planned number of steps"):
        raise found[1]  # type: ignore[misc]


def test_requests_beyond_one_batch_are_answered_in_order() -> None:
    advice, opened = _advice()
    data = measurements(GROUPS)
    messages = [data[i % len(data)] for i in range(2**14 // GROUPS + 5)]
    found = _answered([_request(advice, opened, message) for message in messages])
    expected = [_answered_in_process(advice, opened, message) for message in data]
    assert found == [expected[i % len(data)] for i in range(len(messages))]


def test_only_runs_with_the_same_policy_share_a_plan_and_their_rows_match_single_answers() -> None:
    advice, opened = _advice()
    other, _ = _advice(Policy(slew_limit=2.0))
    assert advice.plan != other.plan
    data = [measurement_from_proto(message, opened) for message in measurements(GROUPS)]
    rows = advice.recommend_all(Measurements.of(data))
    for i, measurement in enumerate(data):
        single = advice.recommend(measurement)
        assert np.array_equal(rows.row(i).multipliers, single.multipliers)
        assert rows.row(i).outcomes == single.outcomes


def test_a_defect_of_a_batch_is_reported_and_its_requests_are_answered_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    advice, opened = _advice()
    requests = [_request(advice, opened, message) for message in measurements(GROUPS)[:2]]
    one_by_one = _answered(requests[:1]) + _answered(requests[1:])
    original = Advice.recommend_all

    def only_one(self: Advice, measured: Any) -> Any:
        if len(measured.steps) > 1:
            raise MemoryError("no room for all of them")
        return original(self, measured)

    monkeypatch.setattr(Advice, "recommend_all", only_one)
    reported: list[Exception] = []
    assert _answered(requests, reported.append) == one_by_one
    assert [str(error) for error in reported] == ["no room for all of them"]


@pytest.mark.parametrize(
    ("interval_steps", "mask", "warns"),
    [(0, "labels", True), (0, "", False), (25, "labels", False)],
)
def test_a_run_is_warned_once_if_its_mask_is_not_the_profiles(
    interval_steps: int, mask: str, warns: bool
) -> None:
    advice, opened = _advice()
    message = _changed(measurements(GROUPS)[0], 0)
    message.interval_steps = interval_steps
    message.mask = mask
    kinds = [warning.kind for warning in answer(advice, opened, message).warnings]
    assert (pb.WARNING_KIND_MASK in kinds) == warns


@pytest.mark.parametrize(
    ("mask", "message"),
    [("a\x00b", "holds the control character"), ("a" * 1025, "1025 characters, but at most 1024")],
)
def test_a_mask_that_is_no_single_line_is_refused(mask: str, message: str) -> None:
    advice, opened = _advice()
    measurement = _changed(measurements(GROUPS)[0], 0)
    measurement.mask = mask
    with pytest.raises(InvalidValueError, match=rf"measurement\.mask: .*{message}"):
        answer(advice, opened, measurement)


@pytest.mark.parametrize("field", ["measuring_seconds", "measuring_overhead"])
def test_a_cost_of_measuring_that_is_no_time_is_refused(field: str) -> None:
    advice, opened = _advice()
    for value in (-1.0, math.nan, math.inf):
        message = _changed(measurements(GROUPS)[0], 0)
        setattr(message, field, value)
        with pytest.raises(InvalidValueError, match=rf"measurement\.{field}: {value}"):
            answer(advice, opened, message)
        (found,) = answer_batch([_request(advice, opened, message)], on_defect=_raise)
        assert isinstance(found, InvalidValueError)

"""A stream, a unary call and in-process use give the same answers and errors, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advisor.local.in_process import InProcessAdvisor
from advisor.registry.profiles import ProfileContent, ProfileHeader
from advisor.wire import content_to_proto, policy_to_proto
from fslr import AdvisorClient, InvalidRequestError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_pb2
from tests.building import PROVENANCE, content_message, layout_message, opening_message
from tests.unit.policy.test_properties import Case, cases, measurements
from tests.unit.wire.strategies import any_measurements


def _content(case: Case) -> profile_pb2.ProfileContent:
    profile = case[0]
    header = ProfileHeader(
        profile.layout, profile.base_learning_rate, profile.total_steps, profile.policy
    )
    message = content_to_proto(
        ProfileContent(
            header,
            profile.steps,
            profile.unit_rates,
            profile.relative_errors,
            coherences=profile.coherences,
        )
    )
    message.provenance.CopyFrom(PROVENANCE)
    return message


def _messages(case: Case, later: list[Any]) -> list[pb.Measurement]:
    return [
        pb.Measurement(
            step=measurement.step,
            unit_rates=measurement.unit_rates,
            relative_errors=measurement.relative_errors,
            multipliers=measurement.multipliers,
            interval_steps=measurement.interval_steps,
            linearity_error=measurement.linearity_error,
            probes=measurement.probes,
            advised=None if measurement.advised is None else measurement.advised,
        )
        for measurement in (case[2], *later)
    ]


def _decision(answer: pb.RecommendLRResponse) -> bytes:
    """Return an answer without the name of the profile, which differs in process."""
    plain = pb.RecommendLRResponse.FromString(answer.SerializeToString())
    plain.ClearField("profile")
    return plain.SerializeToString(deterministic=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_service_and_in_process_use_agree_bit_for_bit(
    client: AdvisorClient, project: str, data: st.DataObject
) -> None:
    case = data.draw(cases())
    groups = len(case[1])
    messages = _messages(case, data.draw(st.lists(measurements(groups), max_size=2)))
    content = _content(case)
    name = client.register_profile("agree", content, project=project).profile.name
    opening = pb.RunOpening(
        profile=name,
        layout=layout_message([group.name for group in case[1].groups]),
        policy=policy_to_proto(case[0].policy) if data.draw(st.booleans()) else None,
    )
    in_process = InProcessAdvisor(content).open_run(opening)
    session = client.open_run(opening)
    try:
        for message in messages:
            streamed = _decision(session.recommend(message))
            assert streamed == _decision(client.recommend_once(opening, message))
            assert streamed == _decision(in_process.recommend(message))
    finally:
        session.close()


def _answer_or_error(ask: Callable[[], pb.RecommendLRResponse]) -> bytes | tuple[str, str]:
    try:
        return _decision(ask())
    except InvalidRequestError as error:
        return str(error), error.reason


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=any_measurements(4))
def test_any_measurement_gets_the_same_answer_or_error_from_the_service_and_in_process(
    client: AdvisorClient, project: str, message: pb.Measurement
) -> None:
    content = content_message()
    name = client.register_profile("agree", content, project=project).profile.name
    opening = opening_message(name, total_steps=100)
    in_process = InProcessAdvisor(content).open_run(opening)
    assert _answer_or_error(lambda: in_process.recommend(message)) == _answer_or_error(
        lambda: client.recommend_once(opening, message)
    )


def test_an_opening_gets_the_same_error_from_the_service_and_in_process(
    client: AdvisorClient, project: str
) -> None:
    content = content_message()
    name = client.register_profile("agree", content, project=project).profile.name
    opening = opening_message(name, total_steps=-1)
    message = pb.Measurement(unit_rates=[1.0] * 4)
    with pytest.raises(InvalidRequestError, match=r"opening\.total_steps: -1 is below 0") as ours:
        InProcessAdvisor(content).open_run(opening)
    with pytest.raises(InvalidRequestError, match=r"opening\.total_steps: -1 is below 0") as theirs:
        client.recommend_once(opening, message)
    assert str(ours.value) == str(theirs.value)
    assert ours.value.reason == theirs.value.reason

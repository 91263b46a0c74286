"""Behind the stream, in one call and in process the same decisions are made, bit for bit."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advisor.local.in_process import InProcessAdvisor
from advisor.registry.profiles import ProfileContent, ProfileHeader
from advisor.wire import content_to, policy_to
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_pb2
from tests.building import PROVENANCE, layout_message
from tests.unit.policy.test_properties import Case, cases, measurements


def _content(case: Case) -> profile_pb2.ProfileContent:
    profile = case[0]
    header = ProfileHeader(
        profile.layout, profile.base_learning_rate, profile.total_steps, profile.policy
    )
    message = content_to(
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
    """Return all of an answer but the name of the profile."""
    plain = pb.RecommendLRResponse.FromString(answer.SerializeToString())
    plain.ClearField("profile")
    return plain.SerializeToString(deterministic=True)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        policy=policy_to(case[0].policy) if data.draw(st.booleans()) else None,
    )
    alone = InProcessAdvisor(content).open_run(opening)
    session = client.open_run(opening)
    try:
        for message in messages:
            streamed = _decision(session.recommend(message))
            assert streamed == _decision(client.recommend_once(opening, message))
            assert streamed == _decision(alone.recommend(message))
    finally:
        session.close()

"""Recommendations over gRPC: the stream, the unary call, and the errors of both."""

from __future__ import annotations

import socket
import time
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from advisor.local.in_process import InProcessAdvisor
from fslr import AdvisorClient, DeadlineExceededError, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import advisor_service_pb2_grpc, policy_pb2
from fslr.advisor.v1.advisor_service_pb2 import Measurement
from fslr.advisor.v1.advisor_service_pb2 import RecommendLRRequest as Request
from fslr.advisor.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from tests.building import (
    NAMES,
    content_message,
    describe_tensors,
    layout_message,
    opening_message,
)


@pytest.fixture
def stub(client: AdvisorClient) -> AdvisorServiceStub:
    return advisor_service_pb2_grpc.AdvisorServiceStub(client.channel())


@pytest.fixture
def profile(client: AdvisorClient, project: str) -> str:
    client.register_profile("gpt", content_message(), project=project)
    return f"projects/{project}/profiles/gpt"


def measurement(step: int = 0, rates: tuple[float, ...] = (1, 1, 1, 1)) -> Measurement:
    return Measurement(step=step, unit_rates=rates)


def test_a_stream_answers_measurements_in_order(stub: AdvisorServiceStub, profile: str) -> None:
    sent = [
        Request(opening=opening_message(profile), measurement=measurement()),
        Request(measurement=measurement(5, (2, 2, 2, 2))),
        Request(measurement=measurement(500)),
    ]
    answers = list(stub.RecommendLR(iter(sent), timeout=10))
    assert [answer.step for answer in answers] == [0, 5, 500]
    assert list(answers[0].multipliers) == [1, 2, 3, 4]
    assert list(answers[1].multipliers) == pytest.approx([0.5, 1, 1.5, 2])
    assert list(answers[0].reference_unit_rates) == [1, 2, 3, 4]
    assert set(answers[0].outcomes) == {policy_pb2.OUTCOME_MATCHED}
    assert answers[0].profile == f"{profile}@1"
    assert answers[0].next_measurement_step == 25
    assert not answers[0].stale


def test_each_run_of_a_cached_layout_is_warned_of_its_own_initial_weights(
    client: AdvisorClient, project: str
) -> None:
    content = content_message()
    describe_tensors(content.layout, width=8, rms=0.02)
    client.register_profile("shaped", content, project=project)
    found = []
    for rms in (0.02, 0.08):
        opening = opening_message(f"projects/{project}/profiles/shaped")
        describe_tensors(opening.layout, width=8, rms=rms)
        answer = client.recommend_once(opening, measurement())
        assert {w.kind for w in answer.warnings} <= {pb.WARNING_KIND_INITIAL_WEIGHTS}
        found.append([warning.message for warning in answer.warnings])
        assert found[-1] == list(client.validate_layout(opening).warnings)
    assert found[0] == []
    assert found[1][0].endswith("record a base that starts with 0.08, or start the run with 0.02")


def test_unary_call_stream_and_in_process_use_agree_bit_for_bit(
    client: AdvisorClient, stub: AdvisorServiceStub, profile: str
) -> None:
    content = client.get_profile(profile).profile.content
    sent = Measurement(
        step=7,
        unit_rates=[0.3, 1e-5, 0.0, 7e9],
        relative_errors=[0.1, 0.2, 0.1, 0.9],
        multipliers=[1.0, 0.3, 2.5, 0.7],
        interval_steps=10,
    )
    opening = opening_message(profile)
    once = client.recommend_once(opening, sent)
    (streamed,) = stub.RecommendLR(iter([Request(opening=opening, measurement=sent)]), timeout=10)
    local = InProcessAdvisor(content).open_run(opening).recommend(sent)
    local.profile = once.profile
    assert once == streamed == local
    assert [policy_pb2.Outcome.Name(o) for o in once.outcomes] == [
        "OUTCOME_MATCHED",
        "OUTCOME_CLAMPED",
        "OUTCOME_HELD_ZERO_RATE",
        "OUTCOME_HELD_LOW_CONFIDENCE",
    ]
    assert list(once.multipliers)[1:] == [4.0, 2.5, 0.7]


def test_a_stream_keeps_the_profile_version_of_its_opening(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", content_message(), project=project)
    client.register_profile("gpt", content_message(rate=0.5), project=project)
    client.set_alias("gpt@1", "prod", project=project)
    opening = opening_message(f"projects/{project}/profiles/gpt@prod")
    session = client.open_run(opening)
    first = session.recommend(measurement())
    client.set_alias("gpt@2", "prod", project=project)
    later = session.recommend(measurement(1))
    assert (first.profile, first.digest) == (later.profile, later.digest)
    session.close()
    with pytest.raises(UnavailableError, match="session is closed; open the run again"):
        session.recommend(measurement(2))
    session = client.open_run(opening)
    reopened = session.recommend(measurement(2))
    assert reopened.profile.endswith("@2")
    assert list(reopened.multipliers) == pytest.approx([0.5, 1.0, 1.5, 2.0])
    session.close()


def details(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, str, dict[str, str]]:
    """Return the code, message, reason and field violations, as any gRPC client can read them."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    reason, violations = "", {}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
            assert info.domain == "fslr.advisor"
        elif detail.Unpack(bad):
            violations = {v.field: v.description for v in bad.field_violations}
    return error.code(), status.message, reason, violations


def bad_requests(profile: str) -> dict[str, list[Request]]:
    good = Request(opening=opening_message(profile), measurement=measurement())
    other_project = opening_message(profile, run="projects/other/runs/r")
    progress = opening_message(profile)
    progress.policy.alignment = policy_pb2.ALIGNMENT_PROGRESS
    negative = opening_message(profile, total_steps=-1)
    words = {
        name: Request(opening=opening_message(profile), measurement=measurement())
        for name in ("escape", "long")
    }
    words["escape"].opening.optimizer = "Adam\x1b[31m"
    words["long"].opening.loss_name = "x" * 1_025
    return {
        **{name: [request] for name, request in words.items()},
        "no opening": [Request(measurement=measurement())],
        "opening again": [good, good],
        "no measurement": [good, Request()],
        "end and more": [good, Request(measurement=measurement(), end=True)],
        "end of none": [good, Request(end=True)],
        "no layout": [Request(opening=pb.RunOpening(profile=profile), measurement=measurement())],
        "nan": [Request(opening=good.opening, measurement=measurement(0, (1, float("nan"), 1, 1)))],
        "inf": [good, Request(measurement=measurement(1, (1, 1, 1, float("inf"))))],
        "negative": [good, Request(measurement=measurement(1, (1, 1, -1, 1)))],
        "short": [good, Request(measurement=measurement(1, (1, 1)))],
        "empty": [good, Request(measurement=Measurement(step=1))],
        "step": [good, Request(measurement=measurement(-1))],
        "errors": [good, Request(measurement=Measurement(unit_rates=[1] * 4, relative_errors=[1]))],
        "in force": [
            good,
            Request(measurement=Measurement(unit_rates=[1] * 4, multipliers=[0] * 4)),
        ],
        "rates": [good, Request(measurement=Measurement(unit_rates=[1] * 4, learning_rates=[1]))],
        "loss": [good, Request(measurement=Measurement(unit_rates=[1] * 4, loss=float("nan")))],
        "total rate": [good, Request(measurement=Measurement(unit_rates=[1] * 4, total_rate=-1))],
        "linearity": [
            good,
            Request(measurement=Measurement(unit_rates=[1] * 4, linearity_error=float("inf"))),
        ],
        "few shares": [good, Request(measurement=Measurement(unit_rates=[1] * 4, shares=[1]))],
        "no share": [
            good,
            Request(measurement=Measurement(unit_rates=[1] * 4, shares=[1, 0, float("nan"), 0])),
        ],
        "unknown profile": [
            Request(opening=opening_message(f"{profile}x"), measurement=measurement())
        ],
        "unknown version": [
            Request(opening=opening_message(f"{profile}@9"), measurement=measurement())
        ],
        "bad name": [Request(opening=opening_message("gpt"), measurement=measurement())],
        "nothing maps": [
            Request(opening=opening_message(profile, ["x", "y"]), measurement=measurement())
        ],
        "other project": [Request(opening=other_project, measurement=measurement())],
        "progress": [Request(opening=progress, measurement=measurement())],
        "total": [Request(opening=negative, measurement=measurement())],
    }


INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("case", "code", "reason", "field", "message"),
    [
        ("no opening", INVALID, "OPENING_MISSING", "", "must carry `opening` with the profile"),
        ("opening again", INVALID, "OPENING_REPEATED", "", "open a new stream to change"),
        ("no measurement", INVALID, "INVALID_VALUE", "measurement", "missing; every message"),
        (
            "end and more",
            INVALID,
            "INVALID_VALUE",
            "measurement",
            "the last measurement in a message",
        ),
        ("end of none", INVALID, "INVALID_VALUE", "end", "set opening.session"),
        ("no layout", INVALID, "INVALID_VALUE", "opening.layout.groups", "name at least one"),
        ("nan", INVALID, "INVALID_VALUE", "measurement.unit_rates[1]", "nan is not a finite"),
        ("inf", INVALID, "INVALID_VALUE", "measurement.unit_rates[3]", "inf is not a finite"),
        ("negative", INVALID, "INVALID_VALUE", "measurement.unit_rates[2]", "of at least 0"),
        ("short", INVALID, "INVALID_VALUE", "measurement.unit_rates", "2 entries, but the layout"),
        ("empty", INVALID, "INVALID_VALUE", "measurement.unit_rates", "0 entries, but the layout"),
        ("step", INVALID, "INVALID_VALUE", "measurement.step", "-1 is not in [0"),
        ("errors", INVALID, "INVALID_VALUE", "measurement.relative_errors", "1 entry, but"),
        ("in force", INVALID, "INVALID_VALUE", "measurement.multipliers[0]", "above 0"),
        ("rates", INVALID, "INVALID_VALUE", "measurement.learning_rates", "1 entry, but"),
        ("loss", INVALID, "INVALID_VALUE", "measurement.loss", "leave it out instead"),
        ("total rate", INVALID, "INVALID_VALUE", "measurement.total_rate", "-1.0 is not a finite"),
        ("linearity", INVALID, "INVALID_VALUE", "measurement.linearity_error", "inf is not a"),
        ("few shares", INVALID, "INVALID_VALUE", "measurement.shares", "1 entry, but"),
        ("no share", INVALID, "INVALID_VALUE", "measurement.shares[2]", "nan is not finite"),
        ("unknown profile", NOT_FOUND, "PROFILE_NOT_FOUND", "", "did you mean"),
        ("unknown version", NOT_FOUND, "VERSION_NOT_FOUND", "", "existing ones: 1"),
        ("bad name", INVALID, "INVALID_VALUE", "opening.profile", "must read projects/"),
        (
            "nothing maps",
            grpc.StatusCode.FAILED_PRECONDITION,
            "LAYOUT_MISMATCH",
            "",
            "2 of 2 groups have no counterpart in the profile: x, y",
        ),
        ("other project", INVALID, "INVALID_VALUE", "opening.profile", "different project"),
        ("progress", INVALID, "INVALID_VALUE", "opening.total_steps", "give total_steps"),
        ("total", INVALID, "INVALID_VALUE", "opening.total_steps", "-1 is below 0"),
        ("escape", INVALID, "INVALID_VALUE", "opening.optimizer", "the control character"),
        (
            "long",
            INVALID,
            "INVALID_VALUE",
            "opening.loss_name",
            "1025 characters, but at most 1024",
        ),
    ],
)
def test_a_bad_request_is_refused_with_code_reason_and_remedy(
    stub: AdvisorServiceStub,
    profile: str,
    case: str,
    code: grpc.StatusCode,
    reason: str,
    field: str,
    message: str,
) -> None:
    requests = bad_requests(profile)[case]
    answered: list[pb.RecommendLRResponse] = []
    with pytest.raises(grpc.RpcError) as caught:
        answered += stub.RecommendLR(iter(requests), timeout=10)
    assert len(answered) == len(requests) - 1  # the requests before the bad one
    got_code, got_message, got_reason, violations = details(caught.value)
    assert (got_code, got_reason) == (code, reason)
    assert message in got_message
    assert list(violations) == ([field] if field else [])
    # The service still answers.
    good = Request(opening=opening_message(profile), measurement=measurement())
    assert stub.RecommendLROnce(good, timeout=10).step == 0


def test_a_message_above_the_size_limit_is_refused_with_a_remedy(
    stub: AdvisorServiceStub, profile: str
) -> None:
    big = [f"group-{i}-{'x' * 400}" for i in range(3000)]
    request = Request(opening=opening_message(profile, big), measurement=measurement())
    with pytest.raises(grpc.RpcError, match="raise the service's --max-message-bytes") as caught:
        stub.RecommendLROnce(request, timeout=10)
    code, _, reason, _ = details(caught.value)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")


def test_undecodable_bytes_are_refused(client: AdvisorClient) -> None:
    call: Any = client.channel().unary_unary("/fslr.advisor.v1.AdvisorService/RecommendLROnce")
    with pytest.raises(grpc.RpcError, match="generate the client from the protos") as caught:
        call(b"\xff\xff\xff", timeout=10)
    assert details(caught.value)[::2] == (INVALID, "MESSAGE_UNREADABLE")


def test_a_layout_mismatch_of_many_long_names_keeps_its_code_and_reason(
    stub: AdvisorServiceStub, profile: str
) -> None:
    """Error details must stay below gRPC's limit for metadata, or the code is lost."""
    names = [f"stranger.{i}.{'ä' * 90}" for i in range(500)]
    request = Request(opening=opening_message(profile, names), measurement=measurement())
    with pytest.raises(grpc.RpcError, match="500 of 500 groups have no counterpart") as caught:
        stub.RecommendLROnce(request, timeout=10)
    code, _, reason, _ = details(caught.value)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAYOUT_MISMATCH")


def test_the_error_for_an_unreachable_service_names_its_address() -> None:
    with (
        AdvisorClient("127.0.0.1:1", deadline_s=10) as client,
        pytest.raises(UnavailableError, match=r"no advisor answers at 127\.0\.0\.1:1 .*serve"),
    ):
        client.get_profile("x")


def test_calls_end_at_the_deadline_when_the_service_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with AdvisorClient(address, deadline_s=0.3) as client:
            started_s = time.monotonic()
            session = client.open_run(opening_message("projects/p/profiles/x"))
            with pytest.raises(
                DeadlineExceededError, match=r"did not answer within 0\.3 s; the current"
            ):
                session.recommend(measurement())
            with pytest.raises(DeadlineExceededError, match=rf"{address} did not answer in time"):
                client.get_profile("x")
            assert time.monotonic() - started_s < 5


def test_groups_with_different_names_map_by_their_given_roles(
    stub: AdvisorServiceStub, profile: str
) -> None:
    layout = layout_message(["Embed_0/embedding"])
    layout.groups[0].role = "embed.weight"
    layout.groups[0].depth_count = 1
    opening = pb.RunOpening(profile=profile, layout=layout)
    answer = stub.RecommendLROnce(
        Request(opening=opening, measurement=measurement(0, (0.25,))), timeout=10
    )
    assert list(answer.multipliers) == [4.0]


def test_a_layout_of_ten_thousand_groups_gets_an_answer(
    client: AdvisorClient, project: str
) -> None:
    names = [f"blocks.{i}.w" for i in range(10_000)]
    client.register_profile("big", content_message(names, steps=(0,)), project=project)
    opening = opening_message(f"projects/{project}/profiles/big", names)
    answer = client.recommend_once(opening, measurement(0, (1.0,) * 10_000))
    assert list(answer.multipliers)[:2] == [1.0, 2.0]
    assert len(NAMES) < len(answer.outcomes) == 10_000

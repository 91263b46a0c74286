"""Measurements that wait at the same time are answered in one batch, whatever fails in it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from advisor.advising.advice import Advice
from advisor.advising.opening import Opening
from advisor.advising.resolved_profile import LoadedProfile, ResolvedProfile
from advisor.observability.logs import configure_logging
from advisor.policy import InvalidValueError, Reference
from advisor.registry.profiles import VersionInfo
from advisor.registry.resource_names import ProfileName
from advisor.rpc.batching import Batcher
from advisor.wire import (
    Answer,
    RecommendationRequest,
    content_from_proto,
    opening_from_proto,
    packed,
)
from benchmarks.rpc.payload import measurements, opening, profile
from fslr.advisor.v1 import advisor_service_pb2 as pb

GROUPS = 20


def _run() -> tuple[Advice, Opening]:
    content = content_from_proto(profile(GROUPS))
    info = VersionInfo(ProfileName("bench", "load"), 1, "0" * 64, datetime(2026, 1, 1, tzinfo=UTC))
    loaded = LoadedProfile(info, content.profile(), Reference(content.profile()))
    opened = opening_from_proto(opening("run", GROUPS))
    return Advice(ResolvedProfile(loaded), opened), opened


def _requests(messages: list[pb.Measurement]) -> list[RecommendationRequest]:
    advice, opened = _run()
    return [
        RecommendationRequest(
            advice, opened, packed.Measurement.FromString(message.SerializeToString())
        )
        for message in messages
    ]


def _answers(
    batcher: Batcher, requests: list[RecommendationRequest]
) -> list[Answer | BaseException]:
    async def gathered() -> list[Answer | BaseException]:
        return await asyncio.gather(
            *(batcher.answer(request) for request in requests), return_exceptions=True
        )

    return asyncio.run(gathered())


def test_measurements_of_one_turn_of_the_event_loop_are_one_batch() -> None:
    batches: list[list[Any]] = []
    found = _answers(Batcher(batches.append), _requests(measurements(GROUPS)))
    assert all(isinstance(one, Answer) for one in found)
    assert [len(batch) for batch in batches] == [len(found)]
    assert [answer for _, answer in batches[0]] == found


def test_an_invalid_measurement_gets_its_error_and_is_not_counted() -> None:
    batches: list[list[Any]] = []
    good, bad = measurements(GROUPS)[:2]
    bad.step = -1
    found = _answers(Batcher(batches.append), _requests([good, bad]))
    assert isinstance(found[0], Answer)
    assert isinstance(found[1], InvalidValueError)
    assert [len(batch) for batch in batches] == [1]


def test_a_defect_is_logged_once_with_its_traceback_and_no_caller_sees_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = _requests(measurements(GROUPS)[:3])
    expected = [_answers(Batcher(lambda _: None), [request])[0] for request in requests]
    original = Advice.recommend_all

    def only_one(self: Advice, measured: Any) -> Any:
        if len(measured.steps) > 1:
            raise MemoryError("no room for all of them")
        return original(self, measured)

    monkeypatch.setattr(Advice, "recommend_all", only_one)
    configure_logging(as_json=True)
    batcher = Batcher(lambda _: None)
    for _ in range(3):
        found = _answers(batcher, requests)
        assert [_encoded(one) for one in found] == [_encoded(one) for one in expected]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["event"]) for line in lines] == [
        ("error", "answering a batch failed; its measurements are answered one by one")
    ]
    assert "MemoryError: no room for all of them" in lines[0]["exception"]
    assert "only_one" in lines[0]["exception"]


def _encoded(answer: Answer | BaseException) -> bytes:
    assert isinstance(answer, Answer)
    return answer.encoded

"""AdvisorService: recommendations for running training jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc

from advisor.advice import Advice, Opening, ProfileSource
from advisor.errors import OpeningMissingError, OpeningRepeatedError
from advisor.metrics import Metrics
from advisor.policy import InvalidValueError
from advisor.rpc.convert import answer, opening_from
from advisor.rpc.offloading import computed
from advisor.store.runs import EventToStore
from advisor.telemetry import Telemetry
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import advisor_service_pb2_grpc, policy_pb2, run_service_pb2

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _OpenRun:
    """What a stream holds between messages; its first message and the store can rebuild it."""

    opening: Opening
    advice: Advice
    encoded: bytes


class AdvisorServicer(advisor_service_pb2_grpc.AdvisorServiceServicer):
    """Answers measurements.

    Args:
        profiles: Where profiles come from.
        telemetry: Where measurements and answers go.
        metrics: Where answers are counted.
        now: The clock.
    """

    def __init__(
        self,
        profiles: ProfileSource,
        telemetry: Telemetry,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._profiles = profiles
        self._telemetry = telemetry
        self._metrics = metrics
        self._now = now

    async def RecommendLR(
        self, request_iterator: AsyncIterator[pb.RecommendLRRequest], context: _Context
    ) -> AsyncIterator[pb.RecommendLRResponse]:
        """Answer each measurement of a stream."""
        run: _OpenRun | None = None
        async for request in request_iterator:
            if run is None:
                run = await self._open(request)
            elif request.HasField("opening"):
                raise OpeningRepeatedError
            yield self._answer(run, request)

    async def RecommendLROnce(
        self, request: pb.RecommendLRRequest, context: _Context
    ) -> pb.RecommendLRResponse:
        """Answer one measurement that comes with its opening."""
        return self._answer(await self._open(request), request)

    async def _open(self, request: pb.RecommendLRRequest) -> _OpenRun:
        if not request.HasField("opening"):
            raise OpeningMissingError
        asked = request.opening.layout
        names = len(asked.groups) + len(asked.frozen_names)
        opening = await computed(names, opening_from, request.opening)
        resolved = await self._profiles.resolve(opening.profile)
        advice = await computed(names + resolved.loaded.names, Advice, resolved, opening)
        return _OpenRun(opening, advice, request.opening.SerializeToString())

    def _answer(self, run: _OpenRun, request: pb.RecommendLRRequest) -> pb.RecommendLRResponse:
        if not request.HasField("measurement"):
            raise InvalidValueError("measurement", "missing; every message carries one")
        response = answer(run.advice, run.opening, request.measurement)
        self._metrics.answers.labels(str(response.stale).lower()).inc()
        for outcome, count in Counter(response.outcomes).items():
            self._metrics.groups.labels(_word(outcome)).inc(count)
        if run.opening.run is not None:
            event = run_service_pb2.RunEvent(
                measurement=request.measurement, recommendation=response
            )
            now = self._now()
            event.time.FromDatetime(now)
            self._telemetry.offer(
                EventToStore(
                    run.opening.run, run.encoded, event.SerializeToString(), response.step, now
                )
            )
        return response


def _word(outcome: policy_pb2.Outcome.ValueType) -> str:
    return policy_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_").lower()

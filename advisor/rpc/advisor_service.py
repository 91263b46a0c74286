"""AdvisorService: recommendations for running training jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
import numpy as np

from advisor.advising.advice import Advice, Opening, ProfileSource
from advisor.advising.telemetry import Telemetry
from advisor.errors import OpeningMissingError, OpeningRepeatedError
from advisor.observability.metrics import Metrics
from advisor.policy import InvalidValueError, Outcome
from advisor.rpc.batching import Batcher
from advisor.rpc.layout_cache import LayoutCache
from advisor.store.runs import EventToStore
from advisor.store.times import to_ms
from advisor.wire import Answer, RecommendationRequest, RecommendLRRequest, packed_event
from fslr.advisor.v1 import advisor_service_pb2 as pb

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _OpenRun:
    """What a stream holds between messages; its first message and the store can rebuild it."""

    opening: Opening
    advice: Advice
    encoded: bytes


class AdvisorServicer:
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
        self._openings = LayoutCache(profiles)
        self._telemetry = telemetry
        self._together = Batcher(self._count)
        self._answers = {
            stale: metrics.answers.labels(str(stale).lower()) for stale in (False, True)
        }
        self._groups = [metrics.groups.labels(outcome.name.lower()) for outcome in Outcome]
        self._now = now

    async def RecommendLR(
        self, request_iterator: AsyncIterator[RecommendLRRequest], context: _Context
    ) -> AsyncIterator[bytes]:
        """Answer each measurement of a stream."""
        run: _OpenRun | None = None
        async for request in request_iterator:
            if run is None:
                run = await self._open(request)
            elif request.opening is not None:
                raise OpeningRepeatedError
            yield await self._answer(run, request)

    async def RecommendLROnce(self, request: RecommendLRRequest, context: _Context) -> bytes:
        """Answer one measurement that comes with its opening."""
        return await self._answer(await self._open(request), request)

    async def _open(self, request: RecommendLRRequest) -> _OpenRun:
        if request.opening is None:
            raise OpeningMissingError
        opening, advice = await self._openings.open(request.opening)
        return _OpenRun(opening, advice, request.opening.SerializeToString())

    async def _answer(self, run: _OpenRun, request: RecommendLRRequest) -> bytes:
        if request.measurement is None:
            raise InvalidValueError("measurement", "missing; every message carries one")
        answered = await self._together.answer(
            RecommendationRequest(run.advice, run.opening, request.measurement)
        )
        if run.opening.run is not None:
            now = self._now()
            event = packed_event(now, request.encoded_measurement, answered.encoded)
            step = request.measurement.step
            self._telemetry.offer(
                EventToStore(run.opening.run, run.encoded, event, step, to_ms(now))
            )
        return answered.encoded

    def _count(self, given: list[tuple[RecommendationRequest, Answer]]) -> None:
        stale = sum(ask.advice.stale for ask, _ in given)
        self._answers[True].inc(stale)
        self._answers[False].inc(len(given) - stale)
        if given:
            codes = np.concatenate([answered.codes for _, answered in given])
            for code, count in enumerate(np.bincount(codes).tolist()):
                if count:
                    self._groups[code].inc(count)


def add_to_server(servicer: AdvisorServicer, server: grpc.aio.Server) -> None:
    """Serve the methods; their messages are read and written here, see :mod:`.convert.packed`."""
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(
            pb.DESCRIPTOR.services_by_name["AdvisorService"].full_name,
            {
                "RecommendLR": grpc.stream_stream_rpc_method_handler(
                    servicer.RecommendLR, RecommendLRRequest.from_bytes
                ),
                "RecommendLROnce": grpc.unary_unary_rpc_method_handler(
                    servicer.RecommendLROnce, RecommendLRRequest.from_bytes
                ),
            },
        ),
    ))

"""AdvisorService: recommendations for running training jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
import numpy as np

from advisor.advising.advice import Advice
from advisor.advising.opening import Opening
from advisor.advising.recipes import RecipeSource
from advisor.advising.resolved_profile import ProfileSource
from advisor.advising.telemetry import Telemetry
from advisor.errors import OpeningMissingError, OpeningRepeatedError
from advisor.observability.metrics import Metrics
from advisor.policy import InvalidValueError, Outcome
from advisor.policy.recommendation import OUTCOMES
from advisor.registry.resource_names import RunName
from advisor.registry.runs import EndToStore, EventToStore
from advisor.rpc.batching import Batcher
from advisor.rpc.layout_cache import LayoutCache
from advisor.rpc.offloading import compute
from advisor.store.times import to_ms
from advisor.wire import (
    Answer,
    RecommendationRequest,
    RecommendLRRequest,
    first_answer,
    packed_event,
)
from fslr.advisor.v1 import advisor_service_pb2 as pb

_Context = grpc.aio.ServicerContext[Any, Any]
_PRIOR, _UNMATCHED = OUTCOMES.index(Outcome.PRIOR), OUTCOMES.index(Outcome.UNMATCHED)


@dataclass(frozen=True, slots=True)
class _OpenRun:
    """What a stream holds between messages; it can be rebuilt from the first message and the store.

    Attributes:
        opening: The run's opening.
        advice: The run's advice.
        encoded_opening: The opening's message, encoded.
        session: Identifies the job; empty: not known.
    """

    opening: Opening
    advice: Advice
    encoded_opening: bytes
    session: str


class AdvisorServicer:
    """Answers measurements.

    Args:
        profiles: Resolves the profiles of runs.
        recipes: Resolves the recipes of runs.
        telemetry: Stores measurements and answers in the background.
        metrics: Counts answers and outcomes.
        now: The clock.
    """

    def __init__(
        self,
        profiles: ProfileSource,
        recipes: RecipeSource,
        telemetry: Telemetry,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._layout_cache = LayoutCache(profiles, recipes)
        self._telemetry = telemetry
        self._batcher = Batcher(self._count)
        self._answers = {
            stale: metrics.answers.labels(str(stale).lower()) for stale in (False, True)
        }
        self._groups = [metrics.groups.labels(outcome.name.lower()) for outcome in Outcome]
        self._now = now

    async def RecommendLR(
        self, request_iterator: AsyncIterator[RecommendLRRequest], context: _Context
    ) -> AsyncIterator[bytes]:
        """Answer each measurement of a stream, and an opening that comes without one."""
        run: _OpenRun | None = None
        async for request in request_iterator:
            if run is None:
                run = await self._open(request)
            elif request.opening is not None:
                raise OpeningRepeatedError
            if request.end:
                self._end(run, request)
                return
            yield await self._answer(run, request)

    async def RecommendLROnce(self, request: RecommendLRRequest, context: _Context) -> bytes:
        """Answer one measurement that comes with its opening, or an opening without one."""
        run = await self._open(request)
        if request.end:
            self._end(run, request)
            return b""
        return await self._answer(run, request)

    async def _open(self, request: RecommendLRRequest) -> _OpenRun:
        if request.opening is None:
            raise OpeningMissingError
        opening, advice = await self._layout_cache.open(request.opening)
        session = request.opening.session
        return _OpenRun(opening, advice, request.opening.SerializeToString(), session)

    async def _answer(self, run: _OpenRun, request: RecommendLRRequest) -> bytes:
        if request.measurement is None:
            if request.opening is not None:
                # Not stored: answers to measurements carry what a run's history needs of it.
                return await self._first_answer(run)
            raise InvalidValueError(
                "measurement", "missing; every message after the first carries one"
            )
        answer = await self._batcher.answer(
            RecommendationRequest(run.advice, run.opening, request.measurement)
        )
        if run.opening.run is not None:
            now = self._now()
            event = packed_event(now, request.encoded_measurement, answer.encoded)
            step = request.measurement.step
            now_ms = to_ms(now)
            self._telemetry.offer(
                EventToStore(
                    run.opening.run,
                    run.encoded_opening,
                    event,
                    step,
                    now_ms,
                    run.session,
                    request.measurement.loss if request.measurement.HasField("loss") else None,
                    request.measurement.learning_rates,
                    answer.next_measurement_step,
                )
            )
            if run.session and self._telemetry.is_concurrent(run.opening.run, now_ms):
                return answer.encoded + _concurrent_warning(run.opening.run)
        return answer.encoded

    async def _first_answer(self, run: _OpenRun) -> bytes:
        groups = len(run.opening.layout)
        answer = await compute(groups, first_answer, run.advice)
        matched = int(np.count_nonzero(run.advice.mapping.matched))
        self._answers[run.advice.stale].inc()
        self._groups[_PRIOR].inc(matched)
        self._groups[_UNMATCHED].inc(groups - matched)
        return answer.SerializeToString()

    def _end(self, run: _OpenRun, request: RecommendLRRequest) -> None:
        """Take note that a job has ended.

        Raises:
            InvalidValueError: The request has a measurement, or its job no session.
        """
        if request.measurement is not None:
            raise InvalidValueError(
                "measurement",
                "given together with end; send the last measurement in a message before",
            )
        if not run.session:
            raise InvalidValueError(
                "end",
                "the opening has no session, so a job that resumes could not be told from the one "
                "that ended; set opening.session",
            )
        if run.opening.run is not None:
            self._telemetry.offer(EndToStore(run.opening.run, run.session, to_ms(self._now())))

    def _count(self, answered: list[tuple[RecommendationRequest, Answer]]) -> None:
        stale = sum(request.advice.stale for request, _ in answered)
        self._answers[True].inc(stale)
        self._answers[False].inc(len(answered) - stale)
        if answered:
            codes = np.concatenate([answer.outcome_codes for _, answer in answered])
            for code, count in enumerate(np.bincount(codes).tolist()):
                if count:
                    self._groups[code].inc(count)


def _concurrent_warning(run: RunName) -> bytes:
    """Return a warning as the end of an encoded answer: encoded messages merge if concatenated."""
    message = (
        f"another job reports measurements to {run}, so its history mixes two trainings; give each "
        "job its own run name, or stop the other one"
    )
    warning = pb.Warning(kind=pb.WARNING_KIND_CONCURRENT_RUN, message=message)
    return pb.RecommendLRResponse(warnings=[warning]).SerializeToString()


def add_to_server(servicer: AdvisorServicer, server: grpc.aio.Server) -> None:
    """Register the methods, with packed messages instead of the contract's classes.

    See :mod:`advisor.wire.packed`.
    """
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

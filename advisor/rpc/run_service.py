"""RunService: the measurements of training jobs, the answers to them, and the runs' metrics."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import grpc

from advisor.policy import InvalidValueError, shown
from advisor.registry.resource_names import RunName, parse_project
from advisor.registry.runs import StoredEvent, StoredMetricReport, StoredRun
from advisor.rpc.audit_origin import audit_origin_of
from advisor.rpc.paging import decode_token, encode_token, page_size
from advisor.store.deletion import Deletions
from advisor.store.metrics import MetricStore
from advisor.store.runs import RunCursor, RunStore
from advisor.wire import (
    metric_report_to_proto,
    metric_reports_from_proto,
    timestamp_to_proto,
)
from fslr.advisor.v1 import run_service_pb2 as pb
from fslr.advisor.v1 import run_service_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]
_CURSOR = re.compile(r"[0-9]{1,15}:[a-z][a-z0-9-]{0,62}")
_EVENT_ID = re.compile(r"([0-9]{1,18}-[0-9]{1,18})?")
_WATCH_WAIT_MS = 500  # below the store's timeout, so that a watch notices when its caller leaves
_WATCH_BATCH = 100


class RunServicer(run_service_pb2_grpc.RunServiceServicer):
    """Serves the stored runs.

    Args:
        store: Stores the runs.
        metrics: Stores their metrics.
        deletions: Deletes them.
        now: The clock.
    """

    def __init__(
        self,
        store: RunStore,
        metrics: MetricStore,
        deletions: Deletions,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._deletions = deletions
        self._now = now

    async def ListRuns(self, request: pb.ListRunsRequest, context: _Context) -> pb.ListRunsResponse:
        """Return a page of runs."""
        runs, after = await self._store.page(
            parse_project("parent", request.parent),
            after=_cursor(decode_token(request.page_token, _CURSOR)),
            size=page_size(request.page_size),
        )
        messages = [_run(run) for run in runs]
        for message in messages:
            message.opening.ClearField("layout")
        return pb.ListRunsResponse(
            runs=messages,
            next_page_token=encode_token(f"{after.created_ms}:{after.run}" if after else ""),
        )

    async def GetRun(self, request: pb.GetRunRequest, context: _Context) -> pb.GetRunResponse:
        """Return one run."""
        return pb.GetRunResponse(
            run=_run(await self._store.get(RunName.parse("name", request.name)))
        )

    async def GetRunHistory(
        self, request: pb.GetRunHistoryRequest, context: _Context
    ) -> pb.GetRunHistoryResponse:
        """Return a page of a run's events."""
        name = RunName.parse("name", request.name)
        size = page_size(request.page_size)
        after = _event_id("after_id", request.after_id)
        await self._store.check_exists(name)
        events = await self._store.history(name, after=after, size=size + 1)
        answer = pb.GetRunHistoryResponse(more=len(events) > size)
        for event in events[:size]:
            _read_event(answer.events.add(), event)
        return answer

    async def ReportRunMetrics(
        self, request: pb.ReportRunMetricsRequest, context: _Context
    ) -> pb.ReportRunMetricsResponse:
        """Store values of a run's own metrics."""
        await self._metrics.report(
            RunName.parse("name", request.name),
            metric_reports_from_proto(request.reports),
            round(self._now().timestamp() * 1000),
        )
        return pb.ReportRunMetricsResponse()

    async def ListRunMetrics(
        self, request: pb.ListRunMetricsRequest, context: _Context
    ) -> pb.ListRunMetricsResponse:
        """Return a page of a run's metrics."""
        name = RunName.parse("name", request.name)
        size = page_size(request.page_size)
        after = _event_id("after_id", request.after_id)
        await self._store.check_exists(name)
        reports = await self._metrics.page(name, after=after, size=size + 1)
        return pb.ListRunMetricsResponse(
            reports=map(metric_report_to_proto, reports[:size]), more=len(reports) > size
        )

    async def DeleteRun(
        self, request: pb.DeleteRunRequest, context: _Context
    ) -> pb.DeleteRunResponse:
        """Delete a run."""
        await self._deletions.delete_run(
            RunName.parse("name", request.name),
            audit_origin_of(context, self._now(), request.request_id),
        )
        return pb.DeleteRunResponse()

    async def WatchRun(  # type: ignore[override]
        self, request: pb.WatchRunRequest, context: _Context
    ) -> AsyncIterator[pb.WatchRunResponse | None]:
        """Send a run's events as they arrive; yield None when none arrived for a while."""
        name = RunName.parse("name", request.name)
        after = _event_id("after_id", request.after_id)
        after_metrics = _event_id("after_metrics_id", request.after_metrics_id)
        while True:
            # A job's end is stored after its events, so all of them are there if it is.
            has_ended = request.until_end and await self._store.has_ended(name)
            events, reports = await self._updates(
                name, after, after_metrics if request.include_metrics else None
            )
            for event in events:
                watched = pb.WatchRunResponse()
                _read_event(watched.event, event)
                yield watched
                after = event.id
            for report in reports:
                yield pb.WatchRunResponse(metrics=metric_report_to_proto(report))
                after_metrics = report.id
            if events or reports:
                continue
            if has_ended:
                return
            yield None

    async def _updates(
        self, name: RunName, after: str, after_metrics: str | None
    ) -> tuple[list[StoredEvent], list[StoredMetricReport]]:
        """Wait for events, and for metrics unless ``after_metrics`` is None."""
        if after_metrics is None:
            events = await self._store.wait_for_events(
                name, after=after, size=_WATCH_BATCH, wait_ms=_WATCH_WAIT_MS
            )
            return events, []
        return await self._metrics.wait_for_updates(
            name,
            after=after,
            after_metrics=after_metrics,
            size=_WATCH_BATCH,
            wait_ms=_WATCH_WAIT_MS,
        )


def _cursor(text: str) -> RunCursor | None:
    created_ms, _, run = text.partition(":")
    return RunCursor(int(created_ms), run) if text else None


def _event_id(field: str, value: str) -> str:
    if not _EVENT_ID.fullmatch(value):
        what = "a report" if field == "after_metrics_id" else "an event"
        raise InvalidValueError(field, f"{shown(value)} is not the id of {what}")
    return value


def _run(run: StoredRun) -> pb.Run:
    message = pb.Run(
        name=str(run.name),
        create_time=timestamp_to_proto(run.create_time),
        update_time=timestamp_to_proto(run.update_time),
        last_step=run.last_step,
        measurements=run.measurements,
        lost_measurements=run.lost,
        loss=run.loss,
        learning_rate=run.learning_rate,
        next_measurement_step=run.next_step,
        concurrent_time=(
            None if run.concurrent_time is None else timestamp_to_proto(run.concurrent_time)
        ),
        end_time=None if run.end_time is None else timestamp_to_proto(run.end_time),
    )
    message.opening.ParseFromString(run.opening)
    return message


def _read_event(message: pb.RunEvent, event: StoredEvent) -> None:
    """Read a stored event into a message of an answer, which spares a copy."""
    message.ParseFromString(event.event)
    message.id = event.id

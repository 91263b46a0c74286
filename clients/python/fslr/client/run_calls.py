"""Calls about stored runs: their history, their metrics, and what arrives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import grpc

from fslr.advisor.v1 import run_service_pb2, run_service_pb2_grpc
from fslr.client.channel import Connection
from fslr.client.pagination import pages_by_event, pages_by_report, pages_by_token
from fslr.client.request_ids import new_request_id
from fslr.client.status_errors import service_error
from fslr.errors import ServiceError
from fslr.resource_names import DEFAULT_PROJECT, project_name, run_name


class RunCalls(Connection):
    """The calls of :class:`.AdvisorClient` about runs."""

    @property
    def _runs(self) -> run_service_pb2_grpc.RunServiceStub:
        return run_service_pb2_grpc.RunServiceStub(self.channel())

    def list_runs(self, *, project: str = DEFAULT_PROJECT) -> Iterator[run_service_pb2.Run]:
        """Iterate over a project's runs, the most recently started first."""
        request = run_service_pb2.ListRunsRequest(parent=project_name(project))
        for page in pages_by_token(lambda r: self._call(self._runs.ListRuns, r), request):
            yield from page.runs

    def get_run(self, run: str, *, project: str = DEFAULT_PROJECT) -> run_service_pb2.Run:
        """Return one run."""
        request = run_service_pb2.GetRunRequest(name=run_name(run, project))
        return self._call(self._runs.GetRun, request).run

    def delete_run(self, run: str, *, project: str = DEFAULT_PROJECT, request_id: str = "") -> None:
        """Delete a run, its history and metrics; a run that still trains appears again.

        Args:
            run: The run.
            project: The project.
            request_id: As in :meth:`.ProfileCalls.register_profile`.
        """
        request = run_service_pb2.DeleteRunRequest(
            name=run_name(run, project), request_id=request_id or new_request_id()
        )
        self._call(self._runs.DeleteRun, request)

    def get_run_history(
        self, run: str, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[run_service_pb2.RunEvent]:
        """Iterate over a run's stored events, the oldest first."""
        request = run_service_pb2.GetRunHistoryRequest(name=run_name(run, project))
        for page in pages_by_event(lambda r: self._call(self._runs.GetRunHistory, r), request):
            yield from page.events

    def report_run_metrics(
        self, run: str, step: int, values: Mapping[str, float], *, project: str = DEFAULT_PROJECT
    ) -> None:
        """Store values of a run's own metrics; of two values for one step the later one counts.

        A training job calls ``report_metrics`` of its attachment instead, which does not wait.

        Args:
            run: The run, which must have measured already.
            step: Optimizer steps completed before the values were measured, >= 0.
            values: The values by the metric's name. A value that is not finite counts as missing.
            project: The project.
        """
        self._report(
            run_name(run, project), [run_service_pb2.MetricReport(step=step, values=values)]
        )

    def _report(self, name: str, reports: Sequence[run_service_pb2.MetricReport]) -> None:
        request = run_service_pb2.ReportRunMetricsRequest(name=name, reports=reports)
        self._call(self._runs.ReportRunMetrics, request)

    def list_run_metrics(
        self, run: str, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[run_service_pb2.MetricReport]:
        """Iterate over a run's stored metrics, in the order in which they were reported."""
        request = run_service_pb2.ListRunMetricsRequest(name=run_name(run, project))
        for page in pages_by_report(lambda r: self._call(self._runs.ListRunMetrics, r), request):
            yield from page.reports

    def watch_run(
        self,
        run: str,
        *,
        after_id: str = "",
        until_end: bool = False,
        project: str = DEFAULT_PROJECT,
    ) -> Iterator[run_service_pb2.RunEvent]:
        """Iterate over a run's events as they arrive, until the caller stops.

        Args:
            run: The run.
            after_id: Yield only events after the one with this id; empty: all stored events first.
            until_end: Whether to stop as well once the run's job has reported that it ended.
            project: The project.

        Yields:
            The events.

        Raises:
            ServiceError: The advisor refused the call, or ended the watch.
        """
        request = run_service_pb2.WatchRunRequest(
            name=run_name(run, project), after_id=after_id, until_end=until_end
        )
        for response in self._watched(request):
            yield response.event

    def watch_run_updates(
        self,
        run: str,
        *,
        after_id: str = "",
        after_metrics_id: str = "",
        project: str = DEFAULT_PROJECT,
    ) -> Iterator[run_service_pb2.WatchRunResponse]:
        """Iterate over a run's events and metrics as they arrive, until the caller stops.

        Args:
            run: The run.
            after_id: Yield only events after the one with this id; empty: all stored events first.
            after_metrics_id: Yield only reports of metrics after the one with this id; empty: all
                stored reports first.
            project: The project.

        Yields:
            Responses that have either ``event`` or ``metrics``.

        Raises:
            ServiceError: The advisor refused the call, or ended the watch.
        """
        yield from self._watched(
            run_service_pb2.WatchRunRequest(
                name=run_name(run, project),
                after_id=after_id,
                include_metrics=True,
                after_metrics_id=after_metrics_id,
            )
        )

    def _watched(
        self, request: run_service_pb2.WatchRunRequest
    ) -> Iterator[run_service_pb2.WatchRunResponse]:
        call = self._runs.WatchRun(request, metadata=self.metadata())
        try:
            yield from call
        except grpc.RpcError as error:
            failure: ServiceError = service_error(error, self.address)
            raise failure from error
        finally:
            call.cancel()

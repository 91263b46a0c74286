"""A run's own metrics: messages to domain objects and back."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.policy import InvalidValueError
from advisor.policy.ranges import STEP
from advisor.registry.runs import MetricReport, StoredMetricReport
from advisor.wire.profiles import timestamp_to_proto
from fslr.advisor.v1 import run_service_pb2 as pb
from fslr.run_metrics import MAX_REPORTS, MAX_VALUES, name_problem


def metric_reports_from_proto(messages: Sequence[pb.MetricReport]) -> list[MetricReport]:
    """Return the reports of a request.

    Raises:
        InvalidValueError: There are none or too many, a step is negative, a report has no value, or
            a name is not valid.
    """
    if not messages:
        raise InvalidValueError("reports", "is empty; send at least one report")
    if len(messages) > MAX_REPORTS:
        raise InvalidValueError(
            "reports", f"{len(messages)} reports; send at most {MAX_REPORTS} in one request"
        )
    values = sum(len(message.values) for message in messages)
    if values > MAX_VALUES:
        raise InvalidValueError(
            "reports", f"{values} values; send at most {MAX_VALUES} in one request"
        )
    return [_report(f"reports[{place}]", message) for place, message in enumerate(messages)]


def _report(field: str, message: pb.MetricReport) -> MetricReport:
    STEP.check(f"{field}.step", message.step)
    if not message.values:
        raise InvalidValueError(f"{field}.values", "is empty; send at least one value")
    for name in message.values:
        problem = name_problem(name)
        if problem:
            raise InvalidValueError(f"{field}.values", problem)
    return MetricReport(message.step, tuple(message.values.items()))


def metric_report_to_proto(report: StoredMetricReport) -> pb.MetricReport:
    """Return the message of a stored report."""
    return pb.MetricReport(
        id=report.id,
        time=timestamp_to_proto(report.time),
        step=report.step,
        values=report.values,
    )

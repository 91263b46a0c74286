"""The runs' own metrics in Redis: for each run a capped stream of reports and a table of names.

A report holds each metric as its number in the table of names, so that long names are stored once.
Storing a report twice is safe: readers use the later value of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from advisor.errors import RunNotFoundError, TooManyMetricsError
from advisor.registry.resource_names import RunName
from advisor.registry.runs import MetricReport, StoredEvent, StoredMetricReport
from advisor.store import keys
from advisor.store.lua import load_script
from advisor.store.redis.connection import awaited, store_errors
from advisor.store.replies import ReportMetricsOutcome
from advisor.store.runs import LIFETIME_S, read_streams, stored_events
from advisor.store.times import from_ms
from fslr.run_metrics import MAX_METRICS

MAX_STORED_REPORTS = 10_000


class MetricStore:
    """Reads and writes the metrics of runs.

    Args:
        redis: The client. It may retry.

    Raises:
        StoreUnavailableError: From every method, if Redis does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._report = load_script(redis, "report_metrics")

    async def report(self, name: RunName, reports: Sequence[MetricReport], time_ms: int) -> None:
        """Store reports of a run, all or none.

        Args:
            name: The run.
            reports: The reports, at least one.
            time_ms: The time, in milliseconds since 1970.

        Raises:
            RunNotFoundError: The run does not exist.
            TooManyMetricsError: The run would have too many metrics.
        """
        own = keys.RunKeys(name)
        names = list(dict.fromkeys(name for report in reports for name, _ in report.values))
        numbers = {name: str(number) for number, name in enumerate(names, start=1)}
        values: list[str | int] = []
        for report in reports:
            values += [report.step, len(report.values)]
            for metric, value in report.values:
                values += [numbers[metric], repr(value)]
        with store_errors():
            outcome, *metrics = await self._report(
                keys=[own.summary, own.events, own.metrics, own.metric_names],
                args=[
                    *(LIFETIME_S, MAX_STORED_REPORTS, MAX_METRICS, time_ms, len(names)),
                    *names,
                    *values,
                ],
            )
        if outcome == ReportMetricsOutcome.NO_RUN:
            raise RunNotFoundError(str(name))
        if outcome == ReportMetricsOutcome.TOO_MANY:
            raise TooManyMetricsError(str(name), metrics[0], MAX_METRICS)

    async def page(self, name: RunName, *, after: str, size: int) -> list[StoredMetricReport]:
        """Return up to ``size`` reports after the report ``after``; empty: from the oldest."""
        own = keys.RunKeys(name)
        with store_errors():
            entries = await awaited(
                self._redis.xrange(own.metrics, min=f"({after}" if after else "-", count=size)
            )
        return await self._decode(name, entries)

    async def wait_for_updates(
        self, name: RunName, *, after: str, after_metrics: str, size: int, wait_ms: int
    ) -> tuple[list[StoredEvent], list[StoredMetricReport]]:
        """Return events and reports of a run; wait if there are none yet.

        Args:
            name: The run.
            after: The id of the event after which to read; empty: from the oldest.
            after_metrics: The id of the report after which to read; empty: from the oldest.
            size: Maximum number of events, and of reports.
            wait_ms: Maximum time to wait, in milliseconds.
        """
        own = keys.RunKeys(name)
        events, reports = await read_streams(
            self._redis,
            {own.events: after, own.metrics: after_metrics},
            size=size,
            wait_ms=wait_ms,
        )
        return stored_events(events), await self._decode(name, reports)

    async def _decode(self, name: RunName, entries: Sequence[Any]) -> list[StoredMetricReport]:
        """Return the reports of stream entries that were read before this call."""
        if not entries:
            return []
        with store_errors():
            table = await awaited(self._redis.hgetall(keys.RunKeys(name).metric_names))
        names = {number: metric.decode() for metric, number in table.items()}
        return [_report(entry, names) for entry in entries]


def _report(entry: Sequence[Any], names: dict[bytes, str]) -> StoredMetricReport:
    entry_id, fields = entry
    values = {
        names[number]: float(value)
        for number, value in fields.items()
        if number in names  # the fields `step` and `time` are not numbers
    }
    return StoredMetricReport(
        entry_id.decode(), from_ms(int(fields[b"time"])), int(fields[b"step"]), values
    )

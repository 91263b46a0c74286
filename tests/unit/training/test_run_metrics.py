"""A run's own metrics: they never stop or delay a training, and losses are counted."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from advisor.local.in_process import InProcessAdvisor
from fslr import (
    Event,
    InvalidRequestError,
    PermissionDeniedError,
    RunInfo,
    RunNotFoundError,
    UnavailableError,
    Warned,
)
from fslr.advisor.v1 import run_service_pb2
from fslr.testing import FakeAdvisor
from fslr.training.advised_run import AdvisedRun
from fslr.training.events import Listeners
from fslr.training.exchange import OneProcess
from fslr.training.metric_queue import MetricQueue
from tests.unit.training.numbers_runs import LAYOUT, WIDE, recorded
from tests.unit.training.numbers_training import NumbersTraining
from tests.waiting import eventually


class Session:
    """Stores reports, or fails with an error."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.refused: set[int] = set()  # steps
        self.calls: list[list[int]] = []
        self.stored: list[int] = []

    def report_metrics(self, reports: Sequence[run_service_pb2.MetricReport]) -> None:
        self.calls.append([report.step for report in reports])
        if self.error is not None:
            raise self.error
        if self.refused & set(self.calls[-1]):
            raise InvalidRequestError("too many metrics")
        self.stored += self.calls[-1]


def report(step: int) -> run_service_pb2.MetricReport:
    return run_service_pb2.MetricReport(step=step, values={"auc": 0.5})


@pytest.mark.parametrize("error", [UnavailableError("away"), RunNotFoundError("not yet")])
def test_reports_wait_for_the_advisor_and_for_the_run(error: Exception) -> None:
    session, clock = Session(), [0.0]
    queue = MetricQueue(session, lambda: clock[0])
    assert (queue.waiting, queue.wait_s) == (0, None)
    session.error = error
    for step in range(3):
        queue.add(report(step))
    queue.send()
    queue.send()  # not due
    assert session.calls == [[0, 1, 2]]
    assert (queue.waiting, queue.lost, queue.wait_s) == (3, 0, 0.5)
    waits: list[float | None] = []
    for _ in range(9):
        clock[0] += queue.wait_s or 0
        queue.send()
        waits.append(queue.wait_s)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    session.error = None
    queue.add(report(3))
    queue.send(now=True)
    assert session.calls[-1] == [0, 1, 2, 3]
    assert (queue.waiting, queue.lost, queue.wait_s) == (0, 0, None)
    queue.add(report(4))
    assert queue.wait_s == 0.5  # two calls are at least this far apart


def test_refused_reports_and_the_oldest_of_too_many_are_lost() -> None:
    session = Session()
    queue = MetricQueue(session)
    for step in range(10_002):
        queue.add(report(step))
    assert (queue.waiting, queue.lost) == (10_000, 2)
    queue.send()
    assert [len(call) for call in session.calls] == [500] * 20
    assert session.calls[0][0] == 2
    session.error = InvalidRequestError("no")
    queue.add(report(1))
    queue.send(now=True)
    assert (queue.waiting, queue.lost, str(queue.error)) == (0, 3, "no")
    session.error = UnavailableError("away")
    queue.add(report(1))
    queue.send(now=True)
    queue.give_up()
    assert (queue.waiting, queue.lost) == (0, 4)


def test_a_refused_report_costs_none_of_those_that_are_sent_with_it() -> None:
    session = Session()
    session.refused = {3, 250}
    queue = MetricQueue(session)
    for step in range(600):
        queue.add(report(step))
    queue.send(now=True)
    assert session.stored == [step for step in range(600) if step not in session.refused]
    assert (queue.waiting, queue.lost, str(queue.error)) == (0, 2, "too many metrics")
    assert len(session.calls) < 60
    session.error = PermissionDeniedError("not yours")  # no smaller call would help
    for step in range(10):
        queue.add(report(step))
    session.calls.clear()
    queue.send(now=True)
    assert [len(call) for call in session.calls] == [10]
    assert queue.lost == 12


def run_of(advisor: Any, events: list[Event], run: str = "night") -> AdvisedRun:
    training = NumbersTraining(WIDE)
    return AdvisedRun(
        advisor,
        RunInfo(run).opening("numbers", LAYOUT, optimizer="SGD", base_learning_rate=0.01),
        size=training.meter.size,
        ranks=OneProcess(),
        listeners=Listeners([events.append]),
        strict=True,
    )


def warnings(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


class NoNumber:
    def __float__(self) -> float:
        raise RuntimeError("on a device that is gone")


def test_what_cannot_be_reported_is_left_out_with_one_warning() -> None:
    advisor, events = FakeAdvisor(), list[Event]()
    run = run_of(advisor, events)
    nonsense: list[tuple[Any, Any]] = [
        (0, {"auc": np.float32(0.5), "nan": math.nan, "x" * 200: 1.0, "inf": np.array([math.inf])}),
        (1, {"text": "high", "gone": NoNumber(), 3: 1.0, "": 1.0, "a\nb": 1.0, "auc": True}),
        (-1, {"auc": 1.0}),
        ("soon", {"auc": 1.0}),
        (2, 0.5),
        (3, {}),
        (4, {f"step {i}": 1.0 for i in range(200)}),
    ]
    for step, values in nonsense * 2:
        run.report_metrics(step, values)
    run.close()
    stored = [(metrics.step, dict(sorted(metrics.values.items()))) for metrics in advisor.metrics]
    assert str(stored[:2]) == str([
        (0, {"auc": 0.5, "inf": math.inf, "nan": math.nan}),
        (1, {"auc": 1.0}),
    ])
    assert [step for step, _ in stored] == [0, 1, 4] * 2
    assert len(stored[2][1]) == 97  # three other names came before
    told = warnings(events)
    assert len(told) == len(set(told))
    for words in (
        "xxx'... has 200 characters; at most 128",
        "'text' is left out: 'high' is not a number",
        "'gone' is left out",
        "the metric 3 is left out: its name is not a text",
        "is empty; give it one",
        r"holds the control character '\n'",
        "the step is -1; it must be in",
        "invalid literal for int()",
        "'float' object has no attribute 'items'",
        "the run has 100 metrics, the maximum",
    ):
        assert any(words in message for message in told), words
    assert run.lost_metrics == 0


def test_runs_that_are_not_stored_say_so() -> None:
    for advisor, run_name, words in (
        (FakeAdvisor(), "", "the run has no name; attach with run="),
        (InProcessAdvisor(recorded()), "night", "this advisor stores no metrics"),
    ):
        events = list[Event]()
        run = run_of(advisor, events, run_name)
        for step in range(3):
            run.report_metrics(step, {"auc": 0.5})
        run.close()
        assert len([m for m in warnings(events) if words in m]) == 1


def test_a_training_never_waits_for_its_metrics_and_learns_of_losses() -> None:
    advisor, events = FakeAdvisor(), list[Event]()
    run = run_of(advisor, events)
    release = threading.Event()
    store = advisor._store

    def slow(reports: Sequence[run_service_pb2.MetricReport]) -> None:
        assert release.wait(10)
        store(reports)

    advisor._store = slow  # type: ignore[method-assign]
    started = time.monotonic()
    for step in range(1_000):
        run.report_metrics(step, {"auc": 0.5})
    assert time.monotonic() - started < 1
    release.set()
    eventually(lambda: len(advisor.metrics) == 1_000)
    assert [metrics.step for metrics in advisor.metrics] == list(range(1_000))
    advisor.fail(InvalidRequestError("no such thing"))
    run.report_metrics(1_000, {"auc": 0.5})
    eventually(lambda: run.lost_metrics == 1)
    run.begin_step(lambda: [0.01] * 4)
    run.report_metrics(1_001, {"auc": 0.5})
    run.close()
    assert warnings(events) == [
        "1 report of metrics was not stored: no such thing",
        "2 reports of metrics of this run were not stored, the last because: no such thing",
    ]

"""Asks an advisor from a background thread, so that no training step waits for an answer."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import deque
from typing import NamedTuple

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import run_service_pb2
from fslr.protocols import MetricSession, RunSession
from fslr.training.metric_queue import MetricQueue

_RETRY_S = 0.05  # between attempts to send metrics while the session ends


class RequestError(NamedTuple):
    """A request that failed.

    Attributes:
        step: The step of its measurement.
        error: The exception.
    """

    step: int
    error: Exception


class BackgroundSession:
    """Sends measurements and the run's metrics in the background, and keeps the newest answer.

    Only the newest waiting measurement is sent; one that is still waiting is replaced. All metrics
    are sent, several reports at once. The thread ends when the session is closed, and also when
    this object is dropped without being closed.

    Args:
        session: The session. From the first :meth:`submit` on, only the thread asks it.

    Attributes:
        submitted: Number of measurements that were handed over.
        replaced: Number of measurements that a newer one replaced before they were sent.
        metrics: The metrics that wait to be sent; None: the session stores none.
    """

    def __init__(self, session: RunSession) -> None:
        self._work = _Work(session)
        self._thread: threading.Thread | None = None
        self.submitted = 0
        self.replaced = 0
        self.metrics = self._work.metrics
        # The thread does not keep this object alive. SimpleQueue may be used while garbage is
        # collected.
        finalizer = weakref.finalize(self, self._work.wake.put, False)
        finalizer.atexit = False

    @property
    def answered(self) -> int:
        """Number of answers."""
        return self._work.answered

    @property
    def failed(self) -> int:
        """Number of measurements whose request failed."""
        return self._work.failed

    @property
    def outstanding(self) -> int:
        """Number of measurements whose answer may still come."""
        return self.submitted - self.answered - self.failed - self.replaced

    def submit(self, measurement: pb.Measurement) -> None:
        """Hand over a measurement; returns at once."""
        self.submitted += 1
        try:
            self._work.newest.pop()
            self.replaced += 1
        except IndexError:
            pass
        self._work.newest.append(measurement)
        self._wake()

    def report(self, report: run_service_pb2.MetricReport) -> None:
        """Hand over metrics; returns at once.

        Raises:
            ValueError: The session stores no metrics.
        """
        if self.metrics is None:
            raise ValueError(f"{self._work.session!r} stores no metrics; check `metrics` first")
        self.metrics.add(report)
        self._wake()

    def _wake(self) -> None:
        self._work.wake.put(True)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work.run, name="fslr-advice", daemon=True)
            self._thread.start()

    def take_answer(self) -> pb.RecommendLRResponse | None:
        """Return the newest answer since the last call, or None."""
        with self._work.lock:
            answer, self._work.answer = self._work.answer, None
            return answer

    @property
    def has_errors(self) -> bool:
        """Whether a request has failed since :meth:`take_errors` was called."""
        return bool(self._work.errors)

    def take_errors(self) -> list[RequestError]:
        """Return the requests that failed since the last call, the oldest first."""
        with self._work.lock:
            errors, self._work.errors = self._work.errors, []
            return errors

    def close(self, *, wait_s: float = 1.0) -> None:
        """End the session; what waits is still sent, for at most ``wait_s`` seconds."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._work.end_s = time.monotonic() + wait_s
            self._work.wake.put(False)
            thread.join(wait_s)
        if self.metrics is not None:
            self.metrics.give_up()
        self._work.session.close()


class _Work:
    """What the thread works on.

    Args:
        session: The session.
    """

    def __init__(self, session: RunSession) -> None:
        self.session = session
        self.metrics = MetricQueue(session) if isinstance(session, MetricSession) else None
        self.newest: deque[pb.Measurement] = deque()  # at most one
        self.wake: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False: the session ends
        self.end_s = 0.0  # when the thread stops to send metrics, of the monotonic clock
        self.lock = threading.Lock()
        self.answer: pb.RecommendLRResponse | None = None
        self.errors: list[RequestError] = []
        self.answered = 0
        self.failed = 0

    def run(self) -> None:
        """Send measurements and metrics until the session ends."""
        while self._wait():
            while self.newest:
                self._ask(self.newest.pop())
            if self.metrics is not None:
                self.metrics.send()
        if self.metrics is not None:
            self._send_last(self.metrics)

    def _wait(self) -> bool:
        """Wait for something to send; return False if the session ends."""
        try:
            return self.wake.get(timeout=None if self.metrics is None else self.metrics.wait_s)
        except queue.Empty:
            return True

    def _ask(self, measurement: pb.Measurement) -> None:
        try:
            answer = self.session.recommend(measurement)
        except Exception as error:  # noqa: BLE001 - whatever it is, training continues
            with self.lock:
                self.errors.append(RequestError(measurement.step, error))
            self.failed += 1
            return
        with self.lock:
            self.answer = answer
        self.answered += 1  # last: the exchange looks for outstanding answers only

    def _send_last(self, metrics: MetricQueue) -> None:
        """Send the metrics that wait; more than once if the run is not stored yet."""
        metrics.send(now=True)
        while metrics.waiting and time.monotonic() < self.end_s:
            time.sleep(_RETRY_S)
            metrics.send(now=True)

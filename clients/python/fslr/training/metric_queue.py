"""A run's own metrics on their way to the advisor: a bounded queue that never delays the training.

The thread that sends measurements (:mod:`fslr.training.background`) also sends what waits here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from fslr.advisor.v1 import run_service_pb2
from fslr.errors import InvalidRequestError, RunNotFoundError, UnavailableError
from fslr.protocols import MetricSession

_MAX_WAITING = 10_000  # reports
_MAX_SENT = 500  # reports in one call
_MAX_SENT_VALUES = 2_000  # in one call, unless a single report has more
_INTERVAL_S = 0.5  # between two calls, so that a training that reports often calls seldom
_FIRST_BACKOFF_S = 0.5  # doubled after each failure
_MAX_BACKOFF_S = 60.0


class MetricQueue:
    """Reports that wait to be sent, and the number of those that were lost.

    One thread adds reports, and one sends them. If the advisor does not answer, or does not know
    the run yet, reports wait and are sent again. If too many wait, the oldest are lost. The advisor
    stores all reports of a call or none. If it refuses them, they are sent again in smaller calls,
    until only those that it refuses by themselves are lost.

    Args:
        session: Stores the reports.
        clock: The time in seconds.
    """

    def __init__(self, session: MetricSession, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[run_service_pb2.MetricReport] = deque()
        self._lost = 0
        self._error: Exception | None = None
        self._next_s = clock()
        self._backoff_s = 0.0
        self._most = _MAX_SENT  # in the next call

    @property
    def lost(self) -> int:
        """Number of reports that were not stored and will not be."""
        return self._lost

    @property
    def waiting(self) -> int:
        """Number of reports that are not stored yet."""
        return len(self._waiting)

    @property
    def wait_s(self) -> float | None:
        """Time until the next call is due, in seconds; None: nothing waits."""
        return max(0.0, self._next_s - self._clock()) if self._waiting else None

    def add(self, report: run_service_pb2.MetricReport) -> None:
        """Add a report; returns at once."""
        with self._lock:
            if len(self._waiting) >= _MAX_WAITING:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(report)

    @property
    def error(self) -> Exception | None:
        """Why the newest call failed; None: no call has failed."""
        return self._error

    def send(self, *, now: bool = False) -> None:
        """Send what waits, if a call is due.

        Args:
            now: Whether to send even if no call is due.
        """
        while self._waiting and (now or self._clock() >= self._next_s):
            batch = self._take()
            try:
                self._session.report_metrics(batch)
            except (UnavailableError, RunNotFoundError) as error:
                self._error = error
                with self._lock:
                    self._waiting.extendleft(reversed(batch))
                self._backoff_s = min(2 * self._backoff_s or _FIRST_BACKOFF_S, _MAX_BACKOFF_S)
                self._next_s = self._clock() + self._backoff_s
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, training continues
                self._refused(batch, error)
            else:
                self._most = min(2 * self._most, _MAX_SENT)
            self._backoff_s = 0.0
            if not self._waiting:
                self._next_s = self._clock() + _INTERVAL_S

    def _refused(self, batch: list[run_service_pb2.MetricReport], error: Exception) -> None:
        """Put refused reports back for smaller calls, or count them as lost."""
        self._error = error
        with self._lock:
            if isinstance(error, InvalidRequestError) and len(batch) > 1:
                self._waiting.extendleft(reversed(batch))
                self._most = len(batch) // 2
            else:
                self._lost += len(batch)

    def _take(self) -> list[run_service_pb2.MetricReport]:
        """Take the oldest reports, as many as one call may hold."""
        batch: list[run_service_pb2.MetricReport] = []
        values = 0
        with self._lock:
            while self._waiting and len(batch) < self._most:
                values += len(self._waiting[0].values)
                if batch and values > _MAX_SENT_VALUES:
                    break
                batch.append(self._waiting.popleft())
        return batch

    def give_up(self) -> None:
        """Count what still waits as lost."""
        with self._lock:
            self._lost += len(self._waiting)
            self._waiting.clear()

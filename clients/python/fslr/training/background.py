"""Asks an advisor from a background thread, so that no training step waits for an answer."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import NamedTuple

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.protocols import RunSession


class RequestError(NamedTuple):
    """A request that failed.

    Attributes:
        step: The step of its measurement.
        error: The exception.
    """

    step: int
    error: Exception


class BackgroundSession:
    """Sends measurements in the background and keeps the newest answer.

    Only the newest waiting measurement is sent; one that is still waiting is replaced.

    Args:
        session: The session. From the first :meth:`submit` on, only the thread uses it.

    Attributes:
        submitted: Number of measurements that were handed over.
        answered: Number of answers.
        failed: Number of measurements whose request failed.
        replaced: Number of measurements that a newer one replaced before they were sent.
    """

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._waiting: queue.Queue[pb.Measurement | None] = queue.Queue(maxsize=1)
        self._lock = threading.Lock()
        self._answer: pb.RecommendLRResponse | None = None
        self._errors: list[RequestError] = []
        self._thread: threading.Thread | None = None
        self.submitted = 0
        self.answered = 0
        self.failed = 0
        self.replaced = 0

    @property
    def outstanding(self) -> int:
        """Number of measurements whose answer may still come."""
        return self.submitted - self.answered - self.failed - self.replaced

    def submit(self, measurement: pb.Measurement) -> None:
        """Hand over a measurement; returns at once."""
        self.submitted += 1
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="fslr-advice", daemon=True)
            self._thread.start()
        while True:
            try:
                self._waiting.put_nowait(measurement)
            except queue.Full:
                try:
                    self._waiting.get_nowait()
                    self.replaced += 1
                except queue.Empty:
                    pass
            else:
                return

    def take_answer(self) -> pb.RecommendLRResponse | None:
        """Return the newest answer since the last call, or None."""
        with self._lock:
            answer, self._answer = self._answer, None
            return answer

    def take_errors(self) -> list[RequestError]:
        """Return the requests that failed since the last call, the oldest first."""
        with self._lock:
            errors, self._errors = self._errors, []
            return errors

    def close(self, *, wait_s: float = 1.0) -> None:
        """End the session; a waiting measurement is still sent, for at most ``wait_s`` seconds."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=wait_s)
            thread.join(wait_s)
        self._session.close()

    def _run(self) -> None:
        while (measurement := self._waiting.get()) is not None:
            try:
                answer = self._session.recommend(measurement)
            except Exception as error:  # noqa: BLE001 - whatever it is, training continues
                with self._lock:
                    self._errors.append(RequestError(measurement.step, error))
                self.failed += 1
                continue
            with self._lock:
                self._answer = answer
            self.answered += 1  # last: the exchange looks for outstanding answers only

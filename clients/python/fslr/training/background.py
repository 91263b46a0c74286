"""Asks an advisor from a background thread, so that no training step waits for an answer."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
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

    Only the newest waiting measurement is sent; one that is still waiting is replaced. The thread
    ends when the session is closed, and also when this object is dropped without being closed.

    Args:
        session: The session. From the first :meth:`submit` on, only the thread uses it.

    Attributes:
        submitted: Number of measurements that were handed over.
        replaced: Number of measurements that a newer one replaced before they were sent.
    """

    def __init__(self, session: RunSession) -> None:
        self._work = _Work(session)
        self._thread: threading.Thread | None = None
        self.submitted = 0
        self.replaced = 0
        # The thread does not keep this object alive. SimpleQueue may be used while garbage is
        # collected.
        finalizer = weakref.finalize(self, self._work.waiting.put, None)
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
        with contextlib.suppress(queue.Empty):
            if self._work.waiting.get_nowait() is not None:
                self.replaced += 1
        self._work.waiting.put(measurement)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work.run, name="fslr-advice", daemon=True)
            self._thread.start()

    def take_answer(self) -> pb.RecommendLRResponse | None:
        """Return the newest answer since the last call, or None."""
        with self._work.lock:
            answer, self._work.answer = self._work.answer, None
            return answer

    def take_errors(self) -> list[RequestError]:
        """Return the requests that failed since the last call, the oldest first."""
        with self._work.lock:
            errors, self._work.errors = self._work.errors, []
            return errors

    def close(self, *, wait_s: float = 1.0) -> None:
        """End the session; a waiting measurement is still sent, for at most ``wait_s`` seconds."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._work.waiting.put(None)
            thread.join(wait_s)
        self._work.session.close()


class _Work:
    """What the thread works on.

    Args:
        session: The session.
    """

    def __init__(self, session: RunSession) -> None:
        self.session = session
        self.waiting: queue.SimpleQueue[pb.Measurement | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.answer: pb.RecommendLRResponse | None = None
        self.errors: list[RequestError] = []
        self.answered = 0
        self.failed = 0

    def run(self) -> None:
        """Send each measurement, until None comes."""
        while (measurement := self.waiting.get()) is not None:
            try:
                answer = self.session.recommend(measurement)
            except Exception as error:  # noqa: BLE001 - whatever it is, training continues
                with self.lock:
                    self.errors.append(RequestError(measurement.step, error))
                self.failed += 1
                continue
            with self.lock:
                self.answer = answer
            self.answered += 1  # last: the exchange looks for outstanding answers only

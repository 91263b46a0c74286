"""A run's session with the service over one ``RecommendLR`` stream."""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import run_service_pb2
from fslr.client.http_proxies import proxy_note
from fslr.client.status_errors import service_error
from fslr.errors import DeadlineExceededError, TooBusyError, UnavailableError

_Call = Any  # gRPC's call: an iterator of responses that can be cancelled
_StartCall = Callable[[Iterator[pb.RecommendLRRequest]], _Call]
_MAX_TRIES = 5
_FIRST_BACKOFF_S = 0.05  # doubled after each try
_LAST_RESPONSE_WAIT_S = 0.1
_END_WAIT_S = 1.0

_log = logging.getLogger("fslr")


class _Stream:
    """One open stream, on which each request is followed by its response.

    A separate thread reads the responses, so that :meth:`exchange` can wait with a timeout: gRPC's
    own iterator has been seen to wait forever for a stream that had ended.
    """

    def __init__(self, start_call: _StartCall) -> None:
        self._requests: queue.SimpleQueue[pb.RecommendLRRequest | None] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[pb.RecommendLRResponse | None] = queue.SimpleQueue()
        self._is_abandoned = False
        self._call = start_call(self._iterate_requests())
        self.pid = os.getpid()
        self._call.add_done_callback(lambda _: self._responses.put(None))
        threading.Thread(target=self._read_responses, name="fslr-stream", daemon=True).start()

    def _iterate_requests(self) -> Iterator[pb.RecommendLRRequest]:
        while (request := self._requests.get()) is not None:
            yield request
        if self._is_abandoned:
            self._call.cancel()

    def _read_responses(self) -> None:
        try:
            for response in self._call:
                self._responses.put(response)
        except grpc.RpcError:
            pass  # exchange() raises the call's error
        finally:
            self._responses.put(None)

    def exchange(self, request: pb.RecommendLRRequest, timeout_s: float) -> pb.RecommendLRResponse:
        """Send a request and return its response.

        Raises:
            Empty: No response arrived within ``timeout_s`` seconds.
            UnavailableError: The service ended the stream.
            RpcError: The call failed.
        """
        self._requests.put(request)
        response = self._responses.get(timeout=timeout_s)
        if response is None:  # the end of the stream, which may overtake the last response
            try:
                response = self._responses.get(timeout=_LAST_RESPONSE_WAIT_S)
            except queue.Empty:
                response = None
        if response is not None:
            return response
        if isinstance(self._call, grpc.RpcError) and self._call.code() is not grpc.StatusCode.OK:
            raise self._call
        raise UnavailableError("the advisor ended the stream: it is shutting down")

    @property
    def has_ended(self) -> bool:
        """Whether no message can be sent any more."""
        return bool(self._call.done())

    def finish(self, request: pb.RecommendLRRequest, timeout_s: float) -> None:
        """Send a last request that gets no response, and wait until the service ends the stream.

        Raises:
            Empty: The stream did not end within ``timeout_s`` seconds.
            RpcError: The call failed.
        """
        self._requests.put(request)
        self._requests.put(None)
        self._responses.get(timeout=timeout_s)
        if isinstance(self._call, grpc.RpcError) and self._call.code() is not grpc.StatusCode.OK:
            raise self._call

    def abandon(self) -> None:
        """End the stream from a finalizer, where no lock may be taken.

        The thread of gRPC that waits for requests cancels the call.
        """
        self._is_abandoned = True
        self._requests.put(None)

    def close(self) -> None:
        """End the stream."""
        self._requests.put(None)
        self._call.cancel()


class StreamSession:
    """A run over a stream, which opens when needed and opens anew after a failure or a fork.

    The first message of each stream carries the opening, so any replica of the service can
    continue the run.

    Args:
        start_call: Starts the RPC; called whenever a stream is opened.
        opening: The run's opening.
        address: The address of the service, for messages.
        deadline_s: Maximum wait for an answer, in seconds.
        send_metrics: Stores reports of the run's metrics, with one call.
    """

    def __init__(
        self,
        start_call: _StartCall,
        opening: pb.RunOpening,
        *,
        address: str,
        deadline_s: float,
        send_metrics: Callable[[Sequence[run_service_pb2.MetricReport]], None],
    ) -> None:
        self._start_call = start_call
        self._send_metrics = send_metrics
        self._opening = pb.RunOpening()
        self._opening.CopyFrom(opening)
        self._opening.session = opening.session or uuid.uuid4().hex
        self._address = address
        self._deadline_s = deadline_s
        self._stream: _Stream | None = None
        self._closed = threading.Event()
        self._finalizer: weakref.finalize[Any, StreamSession] | None = None
        self._is_asking = False
        self._answered_in: int | None = None  # process id

    def start(self) -> pb.RecommendLRResponse:
        """Return what is known before the first step: priors, and a recipe's factors.

        Measurements follow on the same stream. It raises the same errors as :meth:`recommend`.
        """
        return self._try_repeatedly(None)

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement.

        If the stream breaks, for example because the service restarts, the measurement is sent
        again on a new stream to any replica, up to 4 times within the deadline. Sending a
        measurement twice is safe.

        Raises:
            DeadlineExceededError: No answer arrived in time.
            TooBusyError: The advisor has its maximum number of open streams.
            UnavailableError: No advisor answers, or the session is closed.
            ServiceError: The advisor refused the measurement, or could not answer; the next call
                opens a new stream.
        """
        self._is_asking = True
        try:
            answer = self._try_repeatedly(measurement)
        finally:
            self._is_asking = False
        self._answered_in = os.getpid()
        return answer

    def _try_repeatedly(self, measurement: pb.Measurement | None) -> pb.RecommendLRResponse:
        deadline = time.monotonic() + self._deadline_s
        backoff_s = _FIRST_BACKOFF_S
        for _ in range(_MAX_TRIES - 1):
            try:
                return self._try_once(measurement, deadline)
            except (DeadlineExceededError, TooBusyError):
                raise
            except UnavailableError:
                jitter = random.uniform(0.8, 1.2)  # noqa: S311 - spreads the retries of many jobs
                if self._closed.wait(backoff_s * jitter) or time.monotonic() >= deadline:
                    raise
            backoff_s *= 2
        return self._try_once(measurement, deadline)

    def report_metrics(self, reports: Sequence[run_service_pb2.MetricReport]) -> None:
        """Store values of the run's own metrics.

        Raises:
            RunNotFoundError: The run's first measurement is not stored yet.
            ServiceError: The advisor refused the reports, or could not store them.
        """
        self._send_metrics(reports)

    def _try_once(
        self, measurement: pb.Measurement | None, deadline: float
    ) -> pb.RecommendLRResponse:
        request = pb.RecommendLRRequest(measurement=measurement)
        if measurement is None:  # it is the opening that is answered
            self._drop()
        stream = self._stream
        if self._closed.is_set():
            raise UnavailableError("the run's session is closed; open the run again")
        try:
            if stream is None or stream.pid != os.getpid():  # a stream of the parent process
                stream = self._open()
                request.opening.CopyFrom(self._opening)
            return stream.exchange(request, max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            self._drop()
            raise DeadlineExceededError(
                f"the advisor did not answer within {self._deadline_s} s; "
                f"the current multipliers stay in force{proxy_note(self._address)}"
            ) from None
        except grpc.RpcError as error:
            self._drop()
            raise service_error(error, self._address) from error
        except BaseException:
            self._drop()
            raise

    def _open(self) -> _Stream:
        """Return a new stream, which ends when this session is closed or dropped."""
        if self._finalizer is not None:
            self._finalizer.detach()
        stream = self._stream = _Stream(self._start_call)
        self._finalizer = weakref.finalize(self, stream.abandon)
        self._finalizer.atexit = False
        return stream

    def close(self) -> None:
        """End the session for good; may be called from any thread.

        If the run has a name and was measured, the service is told that the job has ended, for at
        most a second. That may fail: the run is then silent after a while.
        """
        was_closed = self._closed.is_set()
        self._closed.set()
        # A forked child did not measure, and its parent goes on. A call under way in another thread
        # waits for a service that does not answer.
        measured = self._answered_in == os.getpid() and not self._is_asking
        try:
            if self._opening.run and measured and not was_closed:
                self._report_end()
        except Exception as error:  # noqa: BLE001 - closing never fails
            _log.debug("the advisor was not told that the run has ended: %r", error)
        finally:
            self._drop()

    def _report_end(self) -> None:
        """Tell the service that the job has ended.

        Raises:
            Empty: The service does not answer.
            RpcError: The call failed.
        """
        request = pb.RecommendLRRequest(end=True)
        stream = self._stream
        if stream is None or stream.has_ended:
            self._drop()
            stream = self._open()
            request.opening.CopyFrom(self._opening)
        stream.finish(request, _END_WAIT_S)

    def _drop(self) -> None:
        """Close the stream; the next measurement opens a new one."""
        stream, self._stream = self._stream, None
        if self._finalizer is not None:
            self._finalizer.detach()
        if stream is not None:
            stream.close()

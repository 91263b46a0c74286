"""A run's conversation with the service over one ``RecommendLR`` stream."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.errors import DeadlineExceededError, UnavailableError, service_error

_Answers = Any  # gRPC's call: an iterator of responses that can be cancelled
_Call = Callable[[Iterator[pb.RecommendLRRequest]], _Answers]


class _Stream:
    """One open stream: a request goes in, its answer comes out."""

    def __init__(self, call: _Call) -> None:
        self._requests: queue.SimpleQueue[pb.RecommendLRRequest | None] = queue.SimpleQueue()
        self.call = call(self._sent())
        self.pid = os.getpid()

    def _sent(self) -> Iterator[pb.RecommendLRRequest]:
        while (request := self._requests.get()) is not None:
            yield request

    def ask(self, request: pb.RecommendLRRequest, deadline_s: float) -> pb.RecommendLRResponse:
        """Return the answer to a request.

        Raises:
            DeadlineExceededError: It did not come in time.
            UnavailableError: The service ended the stream.
            RpcError: The call failed.
        """
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.call.cancel()

        timer = threading.Timer(deadline_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            self._requests.put(request)
            answer: pb.RecommendLRResponse = next(self.call)
        except StopIteration:
            raise UnavailableError("the advisor ended the stream; it is being stopped") from None
        except grpc.RpcError:
            if late.is_set():
                raise DeadlineExceededError(
                    f"the advisor did not answer within {deadline_s} s; "
                    "the multipliers in force stay"
                ) from None
            raise
        else:
            return answer
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the stream."""
        self._requests.put(None)
        self.call.cancel()


class StreamSession:
    """A run over a stream that opens when needed, and anew after a failure or a fork.

    The first message of each stream carries the opening, so any replica of the service can go on.

    Args:
        call: Begins a call; called whenever a stream is opened.
        opening: The run's opening.
        address: Where the service is, for messages.
        deadline_s: Longest wait for an answer, in seconds.
    """

    def __init__(
        self,
        call: _Call,
        opening: pb.RunOpening,
        *,
        address: str,
        deadline_s: float,
    ) -> None:
        self._call = call
        self._opening = opening
        self._address = address
        self._deadline_s = deadline_s
        self._stream: _Stream | None = None
        self._closed = False

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement.

        A stream that was open before and broke (the service was restarted, say) is opened again
        once: a measurement changes nothing that asking twice could harm.

        Raises:
            DeadlineExceededError: The answer did not come in time.
            UnavailableError: Nobody answers.
            ServiceError: The advisor refused, or could not answer; the next call begins anew.
        """
        had_stream = self._stream is not None
        try:
            return self._ask(measurement)
        except DeadlineExceededError:
            raise
        except UnavailableError:
            if not had_stream:
                raise
            return self._ask(measurement)

    def _ask(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        request = pb.RecommendLRRequest(measurement=measurement)
        stream = self._stream
        if self._closed:
            raise UnavailableError("the run's session is closed; open the run again")
        if stream is None or stream.pid != os.getpid():  # the other process's stream is not ours
            stream = self._stream = _Stream(self._call)
            request.opening.CopyFrom(self._opening)
        try:
            return stream.ask(request, self._deadline_s)
        except grpc.RpcError as error:
            self._drop()
            raise service_error(error, self._address) from error
        except BaseException:
            self._drop()
            raise

    def close(self) -> None:
        """End the run's conversation for good, from whatever thread."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        """End the stream; a later measurement opens a new one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

"""A run's session with the service over one ``RecommendLR`` stream."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.client.status_errors import service_error
from fslr.errors import DeadlineExceededError, TooBusyError, UnavailableError

_Answers = Any  # gRPC's call: an iterator of responses that can be cancelled
_Call = Callable[[Iterator[pb.RecommendLRRequest]], _Answers]
_TRIES = 5
_FIRST_PAUSE_S = 0.05  # doubled from try to try
_LAST_ANSWER_S = 0.1


class _Stream:
    """One open stream: a request goes in, its answer comes out.

    Answers are read on a thread of their own, so that whoever asks waits for no longer than it
    wants: gRPC's own iterator has been seen to wait for ever for a stream that had ended.
    """

    def __init__(self, call: _Call) -> None:
        self._requests: queue.SimpleQueue[pb.RecommendLRRequest | None] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[pb.RecommendLRResponse | None] = queue.SimpleQueue()
        self.call = call(self._sent())
        self.pid = os.getpid()
        self.call.add_done_callback(lambda _: self._heard.put(None))
        threading.Thread(target=self._listen, name="fslr-stream", daemon=True).start()

    def _sent(self) -> Iterator[pb.RecommendLRRequest]:
        while (request := self._requests.get()) is not None:
            yield request

    def _listen(self) -> None:
        try:
            for answer in self.call:
                self._heard.put(answer)
        except grpc.RpcError:
            pass  # the call itself says why
        finally:
            self._heard.put(None)

    def ask(self, request: pb.RecommendLRRequest, within_s: float) -> pb.RecommendLRResponse:
        """Return the answer to a request.

        Raises:
            Empty: It did not come within ``within_s`` seconds.
            UnavailableError: The service ended the stream.
            RpcError: The call failed.
        """
        self._requests.put(request)
        answer = self._heard.get(timeout=within_s)
        if answer is None:  # the end, which may overtake the last answer
            try:
                answer = self._heard.get(timeout=_LAST_ANSWER_S)
            except queue.Empty:
                answer = None
        if answer is not None:
            return answer
        if isinstance(self.call, grpc.RpcError) and self.call.code() is not grpc.StatusCode.OK:
            raise self.call
        raise UnavailableError("the advisor ended the stream; it is being stopped")

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
        self._closed = threading.Event()

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement.

        A stream that breaks (the service was restarted, say) is opened again, at whatever replica
        there is, several times within the deadline: a measurement changes nothing that asking twice
        could harm.

        Raises:
            DeadlineExceededError: The answer did not come in time.
            TooBusyError: As many streams are open as the advisor takes.
            UnavailableError: Nobody answers.
            ServiceError: The advisor refused, or could not answer; the next call begins anew.
        """
        end = time.monotonic() + self._deadline_s
        pause_s = _FIRST_PAUSE_S
        for _ in range(_TRIES - 1):
            try:
                return self._ask(measurement, end)
            except (DeadlineExceededError, TooBusyError):
                raise
            except UnavailableError:
                by_chance = random.uniform(0.8, 1.2)  # noqa: S311 - so that jobs do not come at once
                if self._closed.wait(pause_s * by_chance) or time.monotonic() >= end:
                    raise
            pause_s *= 2
        return self._ask(measurement, end)

    def _ask(self, measurement: pb.Measurement, end: float) -> pb.RecommendLRResponse:
        request = pb.RecommendLRRequest(measurement=measurement)
        stream = self._stream
        if self._closed.is_set():
            raise UnavailableError("the run's session is closed; open the run again")
        try:
            if stream is None or stream.pid != os.getpid():  # another process's stream is not ours
                stream = self._stream = _Stream(self._call)
                request.opening.CopyFrom(self._opening)
            return stream.ask(request, max(0.0, end - time.monotonic()))
        except queue.Empty:
            self._drop()
            raise DeadlineExceededError(
                f"the advisor did not answer within {self._deadline_s} s; "
                "the multipliers in force stay"
            ) from None
        except grpc.RpcError as error:
            self._drop()
            raise service_error(error, self._address) from error
        except BaseException:
            self._drop()
            raise

    def close(self) -> None:
        """End the session for good, from whatever thread."""
        self._closed.set()
        self._drop()

    def _drop(self) -> None:
        """End the stream; a later measurement opens a new one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

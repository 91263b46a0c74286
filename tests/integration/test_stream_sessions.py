"""A run's session over a stream: it reconnects, and never waits longer than the deadline."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from fslr import AdvisorClient, DeadlineExceededError, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import advisor_service_pb2_grpc
from fslr.client.stream import StreamSession
from tests.waiting import eventually

DEADLINE_S = 1.0
SLACK_S = 0.8  # for a busy machine
_Behavior = Callable[[int, grpc.ServicerContext], object]


class Advisor(advisor_service_pb2_grpc.AdvisorServiceServicer):
    """Runs a test's code on each stream's first message, and then answers it.

    Attributes:
        streams: Number of streams that were opened.
        retried: Number of those that gRPC opened as a retry.
    """

    def __init__(self, behave: _Behavior) -> None:
        self.streams = self.retried = 0
        self._behave = behave

    def RecommendLR(  # noqa: N802 - gRPC's name
        self, request_iterator: Iterator[pb.RecommendLRRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.RecommendLRResponse]:
        self.streams += 1
        keys = [key for key, _ in context.invocation_metadata()]
        self.retried += "grpc-previous-rpc-attempts" in keys
        request = next(request_iterator)
        assert request.opening.profile == "p"
        self._behave(self.streams, context)
        yield pb.RecommendLRResponse(step=request.measurement.step)

    def RecommendLROnce(  # noqa: N802 - gRPC's name
        self, _request: pb.RecommendLRRequest, context: grpc.ServicerContext
    ) -> pb.RecommendLRResponse:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "only streams are served here")


@contextmanager
def advisor(behave: _Behavior) -> Iterator[tuple[Advisor, StreamSession]]:
    servicer = Advisor(behave)
    server = grpc.server(ThreadPoolExecutor(8))
    advisor_service_pb2_grpc.add_AdvisorServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with AdvisorClient(f"127.0.0.1:{port}", deadline_s=DEADLINE_S) as client:
            session = client.open_run(pb.RunOpening(profile="p"))
            yield servicer, session
            session.close()
    finally:
        server.stop(None).wait()


def unavailable(context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")


class OpenAdvisor(Advisor):
    """Keeps each stream open until the client ends it."""

    def __init__(self) -> None:
        self.ended = threading.Event()

        def watch(_: int, context: grpc.ServicerContext) -> None:
            context.add_callback(self.ended.set)

        super().__init__(watch)

    def RecommendLR(  # noqa: N802 - gRPC's name
        self, request_iterator: Iterator[pb.RecommendLRRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.RecommendLRResponse]:
        yield from super().RecommendLR(request_iterator, context)
        self.ended.wait(10)


def test_a_session_that_is_dropped_leaves_no_threads() -> None:
    servicer = OpenAdvisor()
    server = grpc.server(ThreadPoolExecutor(2))
    advisor_service_pb2_grpc.add_AdvisorServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with AdvisorClient(f"127.0.0.1:{port}") as client:
        client.channel()
        before = set(threading.enumerate())
        session = client.open_run(pb.RunOpening(profile="p"))
        session.recommend(pb.Measurement(step=7))
        assert {thread.name for thread in set(threading.enumerate()) - before} >= {"fslr-stream"}
        del session
        gc.collect()
        assert servicer.ended.wait(10)
        eventually(
            lambda: (
                not [
                    thread
                    for thread in set(threading.enumerate()) - before
                    if "ThreadPoolExecutor" not in thread.name
                ]
            )
        )
    server.stop(None).wait()


def test_a_measurement_is_sent_again_while_the_service_is_unavailable() -> None:
    def fail_three_times(stream: int, context: grpc.ServicerContext) -> None:
        if stream < 4:
            unavailable(context)

    with advisor(fail_three_times) as (servicer, session):
        assert session.recommend(pb.Measurement(step=7)).step == 7
        assert (servicer.streams, servicer.retried) == (4, 0)  # by the session, not by gRPC


def test_a_service_that_stays_unavailable_is_an_error_after_five_tries() -> None:
    with (
        advisor(lambda _, context: unavailable(context)) as (servicer, session),
        pytest.raises(UnavailableError, match="restarting"),
    ):
        session.recommend(pb.Measurement())
    assert servicer.streams == 5


def test_all_tries_together_wait_no_longer_than_the_deadline() -> None:
    def slow(_: int, context: grpc.ServicerContext) -> None:
        time.sleep(0.7 * DEADLINE_S)
        unavailable(context)

    with advisor(slow) as (_, session):
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=r"did not answer within 1\.0 s"):
            session.recommend(pb.Measurement())
        assert time.monotonic() - started < DEADLINE_S + SLACK_S


def test_closing_the_session_ends_a_waiting_call() -> None:
    with advisor(lambda *_: time.sleep(0.5)) as (_, session):
        threading.Timer(0.1, session.close).start()
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=r"no advisor answers|session is closed"):
            session.recommend(pb.Measurement())
        assert time.monotonic() - started < 0.1 + SLACK_S


class SilentCall(grpc.RpcError, grpc.Call):
    """A call whose iterator blocks forever, like that of gRPC after a failed retry.

    Args:
        ended: Whether the call itself has ended.
    """

    def __init__(self, *, ended: bool) -> None:
        super().__init__()
        self._ended = ended
        self._never = threading.Event()

    def __call__(self, _: Iterator[pb.RecommendLRRequest]) -> SilentCall:
        return self

    def __iter__(self) -> Iterator[pb.RecommendLRResponse]:
        self._never.wait()
        yield pb.RecommendLRResponse()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._ended:
            callback(self)

    def cancel(self) -> bool:
        return False

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "connections to all backends failing"

    def trailing_metadata(self) -> tuple[()]:
        return ()

    initial_metadata = is_active = time_remaining = add_callback = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("ended", "error", "message"),
    [
        (True, UnavailableError, "connections to all backends failing"),
        (False, DeadlineExceededError, "did not answer within 1.0 s"),
    ],
)
def test_an_iterator_that_blocks_forever_does_not_block_the_session(
    ended: bool, error: type[Exception], message: str
) -> None:
    session = StreamSession(
        SilentCall(ended=ended),
        pb.RunOpening(),
        address="here",
        deadline_s=DEADLINE_S,
        send_metrics=lambda _: None,
    )
    started = time.monotonic()
    with pytest.raises(error, match=message):
        session.recommend(pb.Measurement())
    assert time.monotonic() - started < DEADLINE_S + SLACK_S


class EndingAdvisor(advisor_service_pb2_grpc.AdvisorServiceServicer):
    """Answers each measurement, and keeps the ends that it gets.

    Args:
        breaks: Whether each stream breaks after its first answer.
        hangs: Whether a stream stays open after its end.

    Attributes:
        ends: For each end, whether the opening came with it.
    """

    def __init__(self, *, breaks: bool = False, hangs: bool = False) -> None:
        self.ends: list[bool] = []
        self._breaks, self._hangs = breaks, hangs

    def RecommendLR(  # noqa: N802 - gRPC's name
        self, request_iterator: Iterator[pb.RecommendLRRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.RecommendLRResponse]:
        gone = threading.Event()
        context.add_callback(gone.set)
        for request in request_iterator:
            if request.end:
                self.ends.append(request.HasField("opening"))
                if self._hangs:
                    gone.wait(10)
                return
            yield pb.RecommendLRResponse(step=request.measurement.step)
            if self._breaks:
                context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    def RecommendLROnce(  # noqa: N802 - gRPC's name
        self, _request: pb.RecommendLRRequest, context: grpc.ServicerContext
    ) -> pb.RecommendLRResponse:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "only streams are served here")


@contextmanager
def ending(servicer: EndingAdvisor, run: str = "r") -> Iterator[StreamSession]:
    server = grpc.server(ThreadPoolExecutor(4))
    advisor_service_pb2_grpc.add_AdvisorServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with AdvisorClient(f"127.0.0.1:{port}", deadline_s=DEADLINE_S) as client:
            yield client.open_run(pb.RunOpening(profile="p", run=run))
    finally:
        server.stop(None).wait()


def test_closing_reports_the_end_once_on_the_stream_or_on_a_new_one() -> None:
    for servicer, with_opening in ((EndingAdvisor(), False), (EndingAdvisor(breaks=True), True)):
        with ending(servicer) as session:
            session.recommend(pb.Measurement(step=1))
            stream = session._stream
            assert stream is not None
            if with_opening:
                eventually(lambda: stream.has_ended)  # noqa: B023 - called at once
            session.close()
            session.close()
        assert servicer.ends == [with_opening]


def test_a_run_that_did_not_measure_or_has_no_name_reports_no_end() -> None:
    for run, measures in (("r", False), ("", True)):
        servicer = EndingAdvisor()
        with ending(servicer, run) as session:
            if measures:
                session.recommend(pb.Measurement(step=1))
            session.close()
        assert servicer.ends == []


def test_closing_waits_a_second_at_most_for_a_service_that_hangs_or_is_gone() -> None:
    servicer = EndingAdvisor(hangs=True)
    with ending(servicer) as session, ending(EndingAdvisor()) as stopped:
        session.recommend(pb.Measurement(step=1))
        started = time.monotonic()
        session.close()
        assert 0.5 < time.monotonic() - started < 1.0 + SLACK_S
        assert servicer.ends == [False]
        stopped.recommend(pb.Measurement(step=1))
    started = time.monotonic()
    stopped.close()  # its service was stopped, and its client closed
    assert time.monotonic() - started < 1.0 + SLACK_S

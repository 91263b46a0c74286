"""A run's session over a stream: who asks waits no longer than the deadline, and rarely in vain."""

from __future__ import annotations

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

DEADLINE_S = 1.0
SLACK_S = 0.8  # what a busy machine may take
_Behaviour = Callable[[int, grpc.ServicerContext], None]


class Advisor(advisor_service_pb2_grpc.AdvisorServiceServicer):
    """Answers each stream's first message, after it behaved as a test wants.

    Attributes:
        streams: Number of streams that were opened.
        retried: Number of those that gRPC opened in the place of another one.
    """

    def __init__(self, behave: _Behaviour) -> None:
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
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "streams alone are served here")


@contextmanager
def advisor(behave: _Behaviour) -> Iterator[tuple[Advisor, StreamSession]]:
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


def away(context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAVAILABLE, "away")


def test_a_measurement_is_sent_again_while_the_service_is_away_for_a_moment() -> None:
    with advisor(lambda stream, context: away(context) if stream < 4 else None) as (them, session):
        assert session.recommend(pb.Measurement(step=7)).step == 7
        assert (them.streams, them.retried) == (4, 0)  # by the session, not by gRPC


def test_a_service_that_stays_away_is_said_to_be() -> None:
    with (
        advisor(lambda _, context: away(context)) as (them, session),
        pytest.raises(UnavailableError, match="away"),
    ):
        session.recommend(pb.Measurement())
    assert them.streams == 5


def test_all_tries_together_wait_no_longer_than_the_deadline() -> None:
    def slow(_: int, context: grpc.ServicerContext) -> None:
        time.sleep(0.7 * DEADLINE_S)
        away(context)

    with advisor(slow) as (_, session):
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match=r"did not answer within 1\.0 s"):
            session.recommend(pb.Measurement())
        assert time.monotonic() - begun < DEADLINE_S + SLACK_S


def test_closing_wakes_who_waits() -> None:
    with advisor(lambda *_: time.sleep(0.5)) as (_, session):
        threading.Timer(0.1, session.close).start()
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match=r"no advisor answers|session is closed"):
            session.recommend(pb.Measurement())
        assert time.monotonic() - begun < 0.1 + SLACK_S


class SilentCall(grpc.RpcError, grpc.Call):
    """A call whose iterator never says a word, as gRPC's after a retry that went wrong.

    Args:
        ended: Whether the call has ended nevertheless.
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
def test_an_iterator_that_never_ends_holds_nobody(
    ended: bool, error: type[Exception], message: str
) -> None:
    session = StreamSession(
        SilentCall(ended=ended), pb.RunOpening(), address="here", deadline_s=DEADLINE_S
    )
    begun = time.monotonic()
    with pytest.raises(error, match=message):
        session.recommend(pb.Measurement())
    assert time.monotonic() - begun < DEADLINE_S + SLACK_S

"""Measurements are sent in the background, by a thread that never outlives its owner."""

from __future__ import annotations

import gc
import threading

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.training.background import BackgroundSession
from tests.waiting import eventually


class Session:
    """Answers when it is released, and fails at negative steps."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked: list[int] = []
        self.closed = 0

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        self.asked.append(measurement.step)
        assert self.released.wait(10)
        if measurement.step < 0:
            raise ValueError("below zero")
        return pb.RecommendLRResponse(step=measurement.step)

    def close(self) -> None:
        self.closed += 1


def test_only_the_newest_waiting_measurement_is_sent() -> None:
    session = Session()
    background = BackgroundSession(session)
    background.submit(pb.Measurement(step=1))
    eventually(lambda: session.asked == [1])
    for step in (2, 3, -4):
        background.submit(pb.Measurement(step=step))
    assert (background.submitted, background.replaced, background.outstanding) == (4, 2, 2)
    assert background.take_answer() is None
    session.released.set()
    eventually(lambda: background.outstanding == 0)
    assert session.asked == [1, -4]
    assert (background.answered, background.failed) == (1, 1)
    answer = background.take_answer()
    assert answer is not None
    assert answer.step == 1
    assert [(error.step, str(error.error)) for error in background.take_errors()] == [
        (-4, "below zero")
    ]
    background.submit(pb.Measurement(step=5))
    background.close()  # what waits is still sent
    assert session.asked == [1, -4, 5]
    assert session.closed == 1


def test_a_session_that_is_dropped_leaves_no_thread() -> None:
    session = Session()
    background = BackgroundSession(session)
    background.submit(pb.Measurement(step=1))
    thread = background._thread
    assert thread is not None
    del background
    gc.collect()
    session.released.set()
    thread.join(10)
    assert not thread.is_alive()

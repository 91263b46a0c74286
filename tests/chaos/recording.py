"""Takes down what clients ask for and what they are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import fslr
from fslr import AdvisorClient, ServiceError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import advisor_service_pb2_grpc, profile_service_pb2
from fslr.client.stream import StreamSession
from fslr.protocols import RunSession
from tests.chaos.history import Outcome, Recorder, Values

REFUSALS = (
    fslr.AliasMovedError,
    fslr.PolicyMovedError,
    fslr.VersionInUseError,
    fslr.NotFoundError,
)


def version_of(name: str) -> int:
    """Return the version at the end of a resource name."""
    return int(name.rsplit("@", 1)[1])


def outcome_of(error: ServiceError) -> tuple[Outcome, Values]:
    """Return what an error says of the operation that it ended."""
    told = {"reason": error.reason, "error": f"{type(error).__name__}: {error}"}
    if isinstance(error, REFUSALS):
        return "refused", told
    if isinstance(error, fslr.UnavailableError):
        return "unknown", told
    return "unknown", {**told, "defect": True}


def carry_out(
    recorder: Recorder,
    kind: str,
    asked: Values,
    call: Callable[[], Values],
    *,
    tries: int = 1,
    pause_s: float = 0.1,
) -> Values | None:
    """Make a call and take it down; return what was told if it was acknowledged.

    Args:
        recorder: Where.
        kind: What is asked for.
        asked: With which values.
        call: Asks, and returns what was told.
        tries: How often to ask while the outcome is unknown: the same request each time.
        pause_s: Pause between two tries.
    """
    number = recorder.invoke(kind, asked)
    waited_s = 0.0
    while True:
        tries -= 1
        begun = time.monotonic()
        outcome: Outcome = "ok"
        try:
            told = call()
        except ServiceError as error:
            outcome, told = outcome_of(error)
        waited_s = max(waited_s, time.monotonic() - begun)
        if outcome != "unknown" or tries <= 0:
            break
        time.sleep(pause_s)
    recorder.returned(number, outcome, {**told, "waited_s": waited_s})
    return told if outcome == "ok" else None


class RecordedAdvisor:
    """An advisor that takes down all recommendations: the client with its eyes open.

    Args:
        client: The client.
        recorder: Where.
        profile: The profile of its runs.
        suffix: The version or alias of it; empty: the latest.
        fixed_rates: Whether :func:`values.measurement` is what its runs measure.
    """

    def __init__(
        self,
        client: AdvisorClient,
        recorder: Recorder,
        profile: str,
        suffix: str,
        *,
        fixed_rates: bool,
    ) -> None:
        self._client, self._recorder = client, recorder
        self._asked = {"profile": profile, "suffix": suffix, "fixed_rates": fixed_rates}

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        """Return how a layout maps."""
        return self._client.validate_layout(opening)

    def open_run(self, opening: pb.RunOpening) -> RunSession:
        """Begin a run."""
        return _RecordedSession(self._client, opening, self._recorder, self._asked)


class _RecordedSession:
    """A run's stream session that takes down its answers, and when each stream was opened."""

    def __init__(
        self, client: AdvisorClient, opening: pb.RunOpening, recorder: Recorder, asked: Values
    ) -> None:
        self._client, self._recorder, self._asked = client, recorder, asked
        self._name = f"{id(self):x}-{time.monotonic_ns()}"
        self._opened_ns = 0
        self._session = StreamSession(
            self._begin, opening, address=client.address, deadline_s=client.deadline_s
        )

    def _begin(self, requests: Iterator[pb.RecommendLRRequest]) -> Any:
        """Begin a stream."""
        self._opened_ns = time.monotonic_ns()
        stub = advisor_service_pb2_grpc.AdvisorServiceStub(self._client.channel())
        return stub.RecommendLR(requests, metadata=self._client.metadata())

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement."""
        number = self._recorder.invoke("recommend", self._asked)
        begun = time.monotonic()
        try:
            answer = self._session.recommend(measurement)
        except ServiceError as error:
            outcome, told = outcome_of(error)
            told |= {"waited_s": time.monotonic() - begun, "opened_ns": self._opened_ns}
            self._recorder.returned(number, outcome, told)
            raise
        told = {
            **answered(answer),
            "stream": f"{self._name}-{self._opened_ns}",
            "opened_ns": self._opened_ns,
            "waited_s": time.monotonic() - begun,
        }
        self._recorder.returned(number, "ok", told)
        return answer

    def close(self) -> None:
        """End the run."""
        self._session.close()


def answered(answer: pb.RecommendLRResponse) -> Values:
    """Return what the history keeps of an answer."""
    return {
        "profile": answer.profile,
        "version": version_of(answer.profile),
        "digest": answer.digest,
        "stale": answer.stale,
        "policy": version_of(answer.policy) if answer.policy else None,
        "multipliers": list(answer.multipliers),
        "references": list(answer.reference_unit_rates),
    }

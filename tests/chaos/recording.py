"""Records the requests and responses of clients."""

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
    """Return the outcome that an error means for its operation, and the values to record."""
    response = {"reason": error.reason, "error": f"{type(error).__name__}: {error}"}
    if isinstance(error, REFUSALS):
        return "refused", response
    if isinstance(error, fslr.UnavailableError):
        return "unknown", response
    return "unknown", {**response, "defect": True}


def carry_out(
    recorder: Recorder,
    kind: str,
    request: Values,
    call: Callable[[], Values],
    *,
    tries: int = 1,
    pause_s: float = 0.1,
) -> Values | None:
    """Make a call and record it; return the response if it was acknowledged.

    Args:
        recorder: Records the operation.
        kind: The kind of call.
        request: The values of the request.
        call: Makes the call and returns the values of the response.
        tries: Maximum number of attempts while the outcome is unknown, each with the same request.
        pause_s: Pause between two attempts in seconds.
    """
    number = recorder.invoke(kind, request)
    waited_s = 0.0
    while True:
        tries -= 1
        started = time.monotonic()
        outcome: Outcome = "ok"
        try:
            response = call()
        except ServiceError as error:
            outcome, response = outcome_of(error)
        waited_s = max(waited_s, time.monotonic() - started)
        if outcome != "unknown" or tries <= 0:
            break
        time.sleep(pause_s)
    recorder.returned(number, outcome, {**response, "waited_s": waited_s})
    return response if outcome == "ok" else None


class RecordedAdvisor:
    """An advisor that records all recommendations of a client.

    Args:
        client: The client.
        recorder: Records the recommendations.
        profile: The profile of its runs.
        suffix: The version or alias of the profile; empty for the latest version.
        fixed_rates: Whether its runs send :func:`values.measurement`.
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
        self._request = {"profile": profile, "suffix": suffix, "fixed_rates": fixed_rates}

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        """Return the mapping of a layout."""
        return self._client.validate_layout(opening)

    def open_run(self, opening: pb.RunOpening) -> RunSession:
        """Open a run."""
        return _RecordedSession(self._client, opening, self._recorder, self._request)


class _RecordedSession:
    """A run's stream session that records its answers and when each stream was opened."""

    def __init__(
        self, client: AdvisorClient, opening: pb.RunOpening, recorder: Recorder, request: Values
    ) -> None:
        self._client, self._recorder, self._request = client, recorder, request
        self._name = f"{id(self):x}-{time.monotonic_ns()}"
        self._opened_ns = 0
        self._session = StreamSession(
            self._open,
            opening,
            address=client.address,
            deadline_s=client.deadline_s,
            send_metrics=lambda _: None,  # its jobs report none
        )

    def _open(self, requests: Iterator[pb.RecommendLRRequest]) -> Any:
        """Open a stream."""
        self._opened_ns = time.monotonic_ns()
        stub = advisor_service_pb2_grpc.AdvisorServiceStub(self._client.channel())
        return stub.RecommendLR(requests, metadata=self._client.metadata())

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement."""
        number = self._recorder.invoke("recommend", self._request)
        started = time.monotonic()
        try:
            answer = self._session.recommend(measurement)
        except ServiceError as error:
            outcome, response = outcome_of(error)
            response |= {"waited_s": time.monotonic() - started, "opened_ns": self._opened_ns}
            self._recorder.returned(number, outcome, response)
            raise
        response = {
            **answered(answer),
            "stream": f"{self._name}-{self._opened_ns}",
            "opened_ns": self._opened_ns,
            "waited_s": time.monotonic() - started,
        }
        self._recorder.returned(number, "ok", response)
        return answer

    def close(self) -> None:
        """End the run."""
        self._session.close()


def answered(answer: pb.RecommendLRResponse) -> Values:
    """Return the values of an answer that the history keeps."""
    return {
        "profile": answer.profile,
        "version": version_of(answer.profile),
        "digest": answer.digest,
        "stale": answer.stale,
        "policy": version_of(answer.policy) if answer.policy else None,
        "multipliers": list(answer.multipliers),
        "references": list(answer.reference_unit_rates),
    }

"""The interface of an advisor, whether it is a service or runs in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_service_pb2, run_service_pb2


class RunSession(Protocol):
    """One run's session with an advisor."""

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement.

        Raises:
            ServiceError: The advisor refused the measurement, or could not answer.
        """
        ...

    def close(self) -> None:
        """End the session for good: its job measures no more. It does not raise."""
        ...


@runtime_checkable
class StartingSession(Protocol):
    """A run's session that also answers before anything is measured; sessions need not."""

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        """Return the answer to a measurement; see :class:`RunSession`."""
        ...

    def start(self) -> pb.RecommendLRResponse:
        """Return what is known before the first step: the factors of the run's recipe.

        Raises:
            ServiceError: The advisor refused the run, or could not answer.
        """
        ...

    def close(self) -> None:
        """End the session; see :class:`RunSession`."""
        ...


@runtime_checkable
class MetricSession(Protocol):
    """A run's session that also stores the run's own metrics; sessions need not."""

    def report_metrics(self, reports: Sequence[run_service_pb2.MetricReport]) -> None:
        """Store values of the run's own metrics.

        Raises:
            RunNotFoundError: The run's first measurement is not stored yet.
            ServiceError: The advisor refused the reports, or could not store them.
        """
        ...


class Advisor(Protocol):
    """Gives recommendations."""

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        """Return how a run's layout maps onto its profile, or why the run would be refused.

        Raises:
            ServiceError: The advisor could not answer.
        """
        ...

    def open_run(self, opening: pb.RunOpening) -> RunSession:
        """Open a run; nothing is sent before its first measurement."""
        ...

"""An advisor for tests that keeps what it receives."""

from __future__ import annotations

from advisor.local.in_process import InProcessAdvisor
from fslr import RunSession
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_pb2, profile_service_pb2


class SpyAdvisor:
    """An in-process advisor that keeps the measurements it receives.

    Args:
        content: The profile.
    """

    def __init__(self, content: profile_pb2.ProfileContent) -> None:
        self.inner = InProcessAdvisor(content)
        self.measurements: list[pb.Measurement] = []

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        return self.inner.validate_layout(opening)

    def open_run(self, opening: pb.RunOpening) -> RunSession:
        self.session = self.inner.open_run(opening)
        return self

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        kept = pb.Measurement()
        kept.CopyFrom(measurement)
        kept.ClearField("measuring_seconds")  # times differ between equal trainings
        kept.ClearField("measuring_overhead")
        self.measurements.append(kept)
        return self.session.recommend(measurement)

    def close(self) -> None:
        self.session.close()

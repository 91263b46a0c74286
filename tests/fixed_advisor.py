"""An advisor for tests whose answers do not depend on what is measured."""

from __future__ import annotations

from collections.abc import Iterable

from fslr import RunSession
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_service_pb2


class FixedAdvisor:
    """Always answers with the same multipliers.

    Args:
        multipliers: The multipliers.
        rule: What they do to weight decay.
        interval: Steps until the next measurement.
    """

    def __init__(
        self,
        multipliers: Iterable[float],
        rule: policy_pb2.WeightDecayRule.ValueType = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT,
        interval: int = 1_000,
    ) -> None:
        self.multipliers, self.rule, self.interval = list(multipliers), rule, interval
        self.measurements: list[pb.Measurement] = []

    def validate_layout(self, _: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        return profile_service_pb2.ValidateLayoutResponse(weight_decay=self.rule)

    def open_run(self, _: pb.RunOpening) -> RunSession:
        return self

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        self.measurements.append(measurement)
        return pb.RecommendLRResponse(
            step=measurement.step,
            multipliers=self.multipliers,
            recommended=[True] * len(self.multipliers),
            next_measurement_step=measurement.step + self.interval,
            weight_decay=self.rule,
        )

    def close(self) -> None:
        pass

"""An advisor in this process whose runs follow a recipe, and whose measurements change nothing."""

from __future__ import annotations

from advisor.local.in_process import InProcessAdvisor, InProcessSession
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_pb2, profile_service_pb2
from tests.building import PROVENANCE


class RecipeAdvisor:
    """An advisor of runs on a base.

    Args:
        base: The base's layout.
        recipe: The recipe that the base's policy names; empty: none.
        optimizer: The base's optimizer.
    """

    def __init__(
        self, base: layout_pb2.Layout, recipe: str = "", *, optimizer: str = "AdamW"
    ) -> None:
        provenance = profile_pb2.Provenance()
        provenance.CopyFrom(PROVENANCE)
        provenance.optimizer = optimizer
        self._inner = InProcessAdvisor(
            profile_pb2.ProfileContent(
                layout=base,
                points=[profile_pb2.ProfilePoint(unit_rates=[1.0] * len(base.groups))],
                base_learning_rate=0.01,
                policy=policy_pb2.Policy(recipe=recipe),
                provenance=provenance,
            )
        )
        self.openings: list[pb.RunOpening] = []

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        return self._inner.validate_layout(opening)

    def open_run(self, opening: pb.RunOpening) -> RecipeSession:
        kept = pb.RunOpening()
        kept.CopyFrom(opening)
        self.openings.append(kept)
        return RecipeSession(self._inner.open_run(kept))


class RecipeSession:
    """A run's session.

    Args:
        inner: Its session with the advisor in this process.
    """

    def __init__(self, inner: InProcessSession) -> None:
        self._inner = inner

    def start(self) -> pb.RecommendLRResponse:
        return self._inner.start()

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        return pb.RecommendLRResponse(
            step=measurement.step,
            multipliers=measurement.multipliers,
            raw_multipliers=[0.5] * len(measurement.multipliers),
            next_measurement_step=measurement.step + 1_000,
        )

    def close(self) -> None:
        self._inner.close()

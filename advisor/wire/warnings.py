"""Warnings of a run to messages."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.advising.mismatch_warnings import Difference, DifferenceKind
from fslr.advisor.v1 import advisor_service_pb2

_WARNING_KINDS = {
    DifferenceKind.BASE_LEARNING_RATE: advisor_service_pb2.WARNING_KIND_BASE_LEARNING_RATE,
    DifferenceKind.OPTIMIZER: advisor_service_pb2.WARNING_KIND_OPTIMIZER,
    DifferenceKind.BATCH_SIZE: advisor_service_pb2.WARNING_KIND_BATCH_SIZE,
    DifferenceKind.LOSS: advisor_service_pb2.WARNING_KIND_LOSS,
    DifferenceKind.WARMUP: advisor_service_pb2.WARNING_KIND_WARMUP,
    DifferenceKind.NEAREST_ROLE: advisor_service_pb2.WARNING_KIND_NEAREST_ROLE,
    DifferenceKind.WEIGHT_DECAY: advisor_service_pb2.WARNING_KIND_WEIGHT_DECAY,
    DifferenceKind.RECORDING: advisor_service_pb2.WARNING_KIND_RECORDING,
    DifferenceKind.INITIAL_WEIGHTS: advisor_service_pb2.WARNING_KIND_INITIAL_WEIGHTS,
    DifferenceKind.SCHEDULE: advisor_service_pb2.WARNING_KIND_SCHEDULE,
    DifferenceKind.MASK: advisor_service_pb2.WARNING_KIND_MASK,
    DifferenceKind.RECIPE: advisor_service_pb2.WARNING_KIND_RECIPE,
    DifferenceKind.RECIPE_DISAGREES: advisor_service_pb2.WARNING_KIND_RECIPE_DISAGREES,
}


def warnings_of(differences: Sequence[Difference]) -> list[advisor_service_pb2.Warning]:
    """Return the messages of differences."""
    return [
        advisor_service_pb2.Warning(
            kind=_WARNING_KINDS[difference.kind], message=difference.message
        )
        for difference in differences
    ]

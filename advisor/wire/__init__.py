"""Messages to domain objects and back, for all services: one module a part of the contract."""

from advisor.wire.advice import mapping_to, opening_from
from advisor.wire.packed import RecommendLRRequest, packed_event
from advisor.wire.policies import layout_from, layout_to, policy_from, policy_to
from advisor.wire.profiles import content_from, content_to, summary_to, timestamp, version_to
from advisor.wire.recommendations import (
    Answer,
    RecommendationRequest,
    answer,
    answer_batch,
    measurement_from,
)

__all__ = [
    "Answer",
    "RecommendLRRequest",
    "RecommendationRequest",
    "answer",
    "answer_batch",
    "content_from",
    "content_to",
    "layout_from",
    "layout_to",
    "mapping_to",
    "measurement_from",
    "opening_from",
    "packed_event",
    "policy_from",
    "policy_to",
    "summary_to",
    "timestamp",
    "version_to",
]

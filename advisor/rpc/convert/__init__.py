"""Messages to domain objects and back, for all services: one module a part of the contract."""

from advisor.rpc.convert.advice import (
    answer,
    mapping_to,
    measurement_from,
    opening_from,
    packed_answer,
)
from advisor.rpc.convert.packed import RecommendLRRequest, packed_event
from advisor.rpc.convert.profiles import content_from, content_to, summary_to, timestamp, version_to
from advisor.rpc.convert.rules import layout_from, layout_to, policy_from, policy_to

__all__ = [
    "RecommendLRRequest",
    "answer",
    "content_from",
    "content_to",
    "layout_from",
    "layout_to",
    "mapping_to",
    "measurement_from",
    "opening_from",
    "packed_answer",
    "packed_event",
    "policy_from",
    "policy_to",
    "summary_to",
    "timestamp",
    "version_to",
]

"""Messages to domain objects and back, for all services: one module a part of the contract."""

from advisor.rpc.convert.advice import mapping_to, opening_from
from advisor.rpc.convert.answers import Answer, Ask, answer, answers, measurement_from
from advisor.rpc.convert.packed import RecommendLRRequest, packed_event
from advisor.rpc.convert.profiles import content_from, content_to, summary_to, timestamp, version_to
from advisor.rpc.convert.rules import layout_from, layout_to, policy_from, policy_to

__all__ = [
    "Answer",
    "Ask",
    "RecommendLRRequest",
    "answer",
    "answers",
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

"""Conversion between protobuf messages and domain objects, and the one table of errors.

Used by the RPC, in process and by the CLI. One module for each part of the contract; no I/O.
"""

from advisor.wire.advice import mapping_to_proto, opening_from_proto
from advisor.wire.first_answers import first_answer
from advisor.wire.layouts import layout_from_proto, layout_to_proto
from advisor.wire.measurements import measurement_from_proto
from advisor.wire.packed import RecommendLRRequest, packed_event
from advisor.wire.policies import policy_from_proto, policy_to_proto
from advisor.wire.profiles import (
    content_from_proto,
    content_to_proto,
    summary_to_proto,
    timestamp_to_proto,
    version_to_proto,
)
from advisor.wire.recipes import recipe_from_proto, recipe_to_proto
from advisor.wire.recommendations import (
    Answer,
    RecommendationRequest,
    answer,
    answer_batch,
)
from advisor.wire.run_metrics import metric_report_to_proto, metric_reports_from_proto

__all__ = [
    "Answer",
    "RecommendLRRequest",
    "RecommendationRequest",
    "answer",
    "answer_batch",
    "content_from_proto",
    "content_to_proto",
    "first_answer",
    "layout_from_proto",
    "layout_to_proto",
    "mapping_to_proto",
    "measurement_from_proto",
    "metric_report_to_proto",
    "metric_reports_from_proto",
    "opening_from_proto",
    "packed_event",
    "policy_from_proto",
    "policy_to_proto",
    "recipe_from_proto",
    "recipe_to_proto",
    "summary_to_proto",
    "timestamp_to_proto",
    "version_to_proto",
]

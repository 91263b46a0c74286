"""Large inputs: in each, one field is as large as the contract allows, or larger."""

from __future__ import annotations

from collections.abc import Iterator

from fslr.advisor.v1 import advisor_service_pb2 as advisor
from fslr.advisor.v1 import (
    audit_service_pb2,
    layout_pb2,
    policy_pb2,
    profile_pb2,
    profile_service_pb2,
    run_service_pb2,
)
from tests.building import content_message, layout_message
from tests.fuzz.inputs import Input
from tests.fuzz.methods import by_name
from tests.fuzz.values import PROJECTS

MAX_SECONDS = 15.0  # maximum processor time for one of them
_GROUPS = 20_000
_PARENT = f"projects/{PROJECTS[0]}"
_PROFILE = f"{_PARENT}/profiles/gpt"
# The rule that does most: it also searches the nearest role of each unmatched one.
_NEAREST = policy_pb2.Policy(unmatched_rule=policy_pb2.UNMATCHED_RULE_NEAREST_ROLE)


def _layouts() -> Iterator[tuple[str, layout_pb2.Layout]]:
    each = range(_GROUPS)
    yield "plain", layout_message([f"blocks.{i}.w.weight" for i in each])
    yield "roles", layout_message([f"blocks.{i % 99}.w{i}.weight" for i in each])
    yield "kinds", layout_message([f"blocks.{i}.w{i % 63}.weight" for i in each])
    yield (
        "nested",
        layout_message([
            f"blocks.{'.'.join(f'layers.{i >> k & 1}' for k in range(8))}.w{i}.weight" for i in each
        ]),
    )
    yield "long names", layout_message([f"{'layers.0.' * 50}{i}" for i in each])
    yield "wrappers", layout_message([f"{'module.' * 70}{i}" for i in each])
    yield "large numbers", layout_message([f"blocks.{'9' * 300}{i}.w.weight" for i in each])
    yield "too many", layout_message([f"g{i}" for i in range(_GROUPS + 1)])
    yield (
        "explicit roles",
        layout_pb2.Layout(
            groups=[layout_pb2.Group(name=f"g{i}", role=f"r{i}", depth_count=_GROUPS) for i in each]
        ),
    )
    yield (
        "explicit inner roles",
        layout_pb2.Layout(
            groups=[
                layout_pb2.Group(
                    name=f"g{i}",
                    role="r",
                    depth_index=i,
                    depth_count=_GROUPS,
                    inner_indices=[0],
                    inner_counts=[_GROUPS],
                )
                for i in each
            ]
        ),
    )
    templates = layout_message([f"a{i}.b" for i in each])
    templates.role_templates.extend(f"a{i}.*{'y' * 500}" for i in range(256))
    yield "templates", templates
    frozen = layout_message()
    frozen.frozen_names.extend(f"blocks.{i}.frozen.weight" for i in range(100_000))
    yield "frozen names", frozen


def _contents() -> Iterator[tuple[str, profile_pb2.ProfileContent]]:
    yield "points", content_message(steps=range(100_000))
    yield "points too many", content_message(steps=range(100_001))
    pairs = content_message()
    for _ in range(200_000):
        pairs.correlated_groups.add(first=1, second=2)
    for point in pairs.points:
        point.correlations.extend([0.5] * 200_000)
    yield "pairs", pairs
    aliases = content_message()
    for i in range(256):
        aliases.group_aliases.add(pattern=f"{'*x' * 100}**b{i}x", target=f"{'*x' * 100}**b{i}x")
    yield "aliases", aliases
    labels = content_message()
    for i in range(50_000):
        labels.labels[f"k{i}"] = "v" * 100
    yield "labels", labels
    yield "docs", content_message(docs="x" * 10_000_000)
    yield "groups", content_message([f"blocks.{i}.w.weight" for i in range(_GROUPS)])


def heavy_inputs() -> Iterator[tuple[str, Input]]:
    """Yield large inputs, each with the name of its large field."""
    for what, layout in _layouts():
        request = profile_service_pb2.ValidateLayoutRequest(
            name=_PROFILE, layout=layout, policy=_NEAREST
        )
        yield what, _input("ProfileService/ValidateLayout", request.SerializeToString())
    for what, content in _contents():
        registered = profile_service_pb2.RegisterProfileRequest(
            name=f"{_PARENT}/profiles/heavy", content=content
        )
        yield what, _input("ProfileService/RegisterProfile", registered.SerializeToString())
    # These map onto the last content above, which has one block more.
    deep = layout_message([f"blocks.{i}.w.weight" for i in range(_GROUPS - 1)])
    rates = advisor.Measurement(unit_rates=[1.0] * (_GROUPS - 1))
    opening = advisor.RunOpening(
        profile=f"{_PARENT}/profiles/heavy", layout=deep, run=f"{_PARENT}/runs/heavy"
    )
    for measurement in (rates, advisor.Measurement(unit_rates=[1.0] * 5_000_000)):
        recommended = advisor.RecommendLRRequest(opening=opening, measurement=measurement)
        yield (
            "measurement",
            _input("AdvisorService/RecommendLROnce", recommended.SerializeToString()),
        )
    terms = " AND ".join(f"labels.k{i}=v" for i in range(20_000))
    for text in (terms, "labels.k=" + " AND" * 1_000_000, 'labels.k="' + "\\" * 1_000_000):
        listed = profile_service_pb2.ListProfilesRequest(parent=_PARENT, filter=text)
        yield "filter", _input("ProfileService/ListProfiles", listed.SerializeToString())
    audited = audit_service_pb2.ListAuditEventsRequest(parent=_PARENT, page_token="A" * 10_000_000)
    yield "page token", _input("AuditService/ListAuditEvents", audited.SerializeToString())
    watched = run_service_pb2.GetRunRequest(name=f"{_PARENT}/runs/{'x/' * 5_000_000}")
    yield "name", _input("RunService/GetRun", watched.SerializeToString())


def _input(method: str, message: bytes) -> Input:
    return Input(by_name()[method], (message,))

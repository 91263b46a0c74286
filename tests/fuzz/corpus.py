"""Valid requests, which are also what fills the registry that mutated ones then meet."""

from __future__ import annotations

import random

from google.protobuf.message import Message

from fslr.advisor.v1 import advisor_service_pb2 as advisor
from fslr.advisor.v1 import (
    audit_service_pb2,
    layout_pb2,
    policy_pb2,
    policy_service_pb2,
    profile_pb2,
    profile_service_pb2,
    run_service_pb2,
)
from tests.building import content_message, layout_message
from tests.fuzz.values import ALIASES, POLICIES, PROFILES, PROJECTS, RUNS

_DEEP = (
    "embed.weight",
    *(f"blocks.{i}.{part}" for i in range(4) for part in ("attn.weight", "up.weight", "norm.bias")),
    "head.weight",
)
_EXPERTS = (
    *(f"layers.{i}.experts.{j}.w.weight" for i in range(2) for j in range(4)),
    *(f"stages.{i}.{j}.conv.weight" for i in range(2) for j in range(2)),
    "head.weight",
)
_DEPTH_RULES = (
    policy_pb2.DEPTH_RULE_SUM,
    policy_pb2.DEPTH_RULE_SQRT,
    policy_pb2.DEPTH_RULE_COPY,
)
_UNMATCHED_RULES = (
    policy_pb2.UNMATCHED_RULE_ERROR,
    policy_pb2.UNMATCHED_RULE_HOLD,
    policy_pb2.UNMATCHED_RULE_NEAREST_ROLE,
)
_LAYOUTS = {"gpt": None, "mlp": _DEEP, "conv": _EXPERTS}


def _layout(profile: str) -> layout_pb2.Layout:
    names = _LAYOUTS[profile]
    return layout_message() if names is None else layout_message(names)


def _content(project: str, profile: str, chance: random.Random) -> profile_pb2.ProfileContent:
    names = _LAYOUTS[profile]
    rate = chance.choice((0.5, 1.0, 2.0))
    content = content_message(rate=rate) if names is None else content_message(names, rate=rate)
    content.labels["team"] = chance.choice(("nlp", "vision"))
    content.labels["size"] = "small"
    content.docs = "# How to use it\nAs it is."
    content.total_steps = 1_000
    content.group_aliases.add(pattern="blocks_*/up/kernel", target="blocks.*.up.weight")
    if profile == "gpt":
        content.correlated_groups.add(first=1, second=2)
        for point in content.points:
            point.correlations.append(0.5)
            point.relative_errors.extend([0.1] * 4)
            point.learning_rate = 0.01
            point.spreads.extend([0.2] * 4)
    if profile == "mlp":
        content.policy.CopyFrom(_rules(chance))
    if profile == "conv":
        content.policy_name = f"projects/{project}/policies/{POLICIES[0]}"
    return content


def _rules(chance: random.Random) -> policy_pb2.Policy:
    return policy_pb2.Policy(
        depth_rule=chance.choice(_DEPTH_RULES),
        unmatched_rule=chance.choice(_UNMATCHED_RULES),
        min_multiplier=0.01,
        max_multiplier=100.0,
        slew_limit=3.0,
        max_linearity_error=0.3,
        min_interval_steps=5,
        max_interval_steps=50,
        target_relative_error=0.2,
        freeze_after_step=1_000,
        averaging_window=0.5,
    )


def opening(chance: random.Random, project: str, profile: str) -> advisor.RunOpening:
    """Return the opening of a run, of the profile's own layout or of a deeper one."""
    layout = _layout(profile)
    if chance.random() < 0.3:
        layout.frozen_names.append("frozen.weight")
        layout.frozen_parameter_counts.append(7)
    suffix = chance.choice(("", "", "", "", "@1", "@prod"))
    return advisor.RunOpening(
        run=f"projects/{project}/runs/{chance.choice(RUNS)}",
        profile=f"projects/{project}/profiles/{profile}{suffix}",
        layout=layout,
        total_steps=1_000,
        policy=_rules(chance) if chance.random() < 0.5 else None,
        optimizer="Adam",
        base_learning_rate=0.01,
        batch_size=4,
        loss_name="cross-entropy",
    )


def measurement(chance: random.Random, groups: int) -> advisor.Measurement:
    """Return a measurement of as many groups."""
    rates = [chance.uniform(0.1, 10.0) for _ in range(groups)]
    return advisor.Measurement(
        step=chance.randrange(900),
        unit_rates=rates,
        relative_errors=[0.1] * groups,
        multipliers=[1.0] * groups,
        learning_rates=[0.01] * groups,
        interval_steps=chance.choice((0, 10)),
        probes=1,
        examples=4,
        loss=2.0,
        total_rate=1.0,
        shares=[1.0 / groups] * groups,
        linearity_error=0.1,
        advised=[True] * groups if chance.random() < 0.5 else None,
    )


def recommend(chance: random.Random) -> advisor.RecommendLRRequest:
    """Return the first message of a run."""
    project, profile = chance.choice(PROJECTS), chance.choice(PROFILES)
    begun = opening(chance, project, profile)
    groups = len(begun.layout.groups)
    return advisor.RecommendLRRequest(opening=begun, measurement=measurement(chance, groups))


def valid_request(method: str, chance: random.Random) -> Message | None:
    """Return a valid request of a method, or None for a method that none is written for.

    Args:
        method: ``Service/Method``.
        chance: Where it comes from.
    """
    project = chance.choice(PROJECTS)
    profile, alias = chance.choice(PROFILES), chance.choice(ALIASES)
    run = f"projects/{project}/runs/{chance.choice(RUNS)}"
    policy = f"projects/{project}/policies/{chance.choice(POLICIES)}"
    parent, name = f"projects/{project}", f"projects/{project}/profiles/{profile}"
    page = chance.choice((0, 1, 2, 5))
    # Versions that are deleted come back as new ones when they are registered again.
    old = chance.randrange(1, 200)
    profiles = profile_service_pb2
    match method:
        case "AdvisorService/RecommendLR" | "AdvisorService/RecommendLROnce":
            return recommend(chance)
        case "AuditService/ListAuditEvents":
            return audit_service_pb2.ListAuditEventsRequest(parent=parent, page_size=page)
        case "PolicyService/SetPolicy":
            return policy_service_pb2.SetPolicyRequest(name=policy, policy=_rules(chance))
        case "PolicyService/GetPolicy":
            return policy_service_pb2.GetPolicyRequest(name=policy)
        case "PolicyService/ListPolicies":
            return policy_service_pb2.ListPoliciesRequest(parent=parent, page_size=page)
        case "ProfileService/RegisterProfile":
            return profiles.RegisterProfileRequest(
                name=name, content=_content(project, profile, chance)
            )
        case "ProfileService/GetProfile":
            return profiles.GetProfileRequest(name=name)
        case "ProfileService/ListProfiles":
            return profiles.ListProfilesRequest(
                parent=parent, page_size=page, filter=chance.choice(("", "labels.team=nlp"))
            )
        case "ProfileService/ValidateLayout":
            return profiles.ValidateLayoutRequest(
                name=name, layout=_layout(profile), policy=_rules(chance)
            )
        case "ProfileService/SetProfileAlias":
            return profiles.SetProfileAliasRequest(name=name, alias=alias)
        case "ProfileService/DeleteProfileAlias":
            return profiles.DeleteProfileAliasRequest(name=name, alias=alias)
        case "ProfileService/DeleteProfile":
            return profiles.DeleteProfileRequest(name=f"{name}@{old}")
        case "RunService/ListRuns":
            return run_service_pb2.ListRunsRequest(parent=parent, page_size=page)
        case "RunService/GetRun":
            return run_service_pb2.GetRunRequest(name=run)
        case "RunService/GetRunHistory":
            return run_service_pb2.GetRunHistoryRequest(name=run, page_size=page)
        case "RunService/WatchRun":
            return run_service_pb2.WatchRunRequest(name=run)
    return None


def seeding() -> list[tuple[str, Message]]:
    """Return the requests that fill an empty registry, in order, as pairs of method and request."""
    chance = random.Random(0)
    requests: list[tuple[str, Message]] = []
    for project in PROJECTS:
        requests += [
            (
                "PolicyService/SetPolicy",
                policy_service_pb2.SetPolicyRequest(
                    name=f"projects/{project}/policies/{policy}", policy=_rules(chance)
                ),
            )
            for policy in POLICIES
        ]
        for profile in PROFILES:
            name = f"projects/{project}/profiles/{profile}"
            content = _content(project, profile, chance)
            requests.append((
                "ProfileService/RegisterProfile",
                profile_service_pb2.RegisterProfileRequest(name=name, content=content),
            ))
            requests += [
                (
                    "ProfileService/SetProfileAlias",
                    profile_service_pb2.SetProfileAliasRequest(name=f"{name}@1", alias=alias),
                )
                for alias in ALIASES
            ]
    return requests


def registration(name: str, content: profile_pb2.ProfileContent) -> tuple[str, Message]:
    """Return the method and the request that register a profile."""
    return "ProfileService/RegisterProfile", profile_service_pb2.RegisterProfileRequest(
        name=name, content=content
    )


def plain_opening(profile: str) -> advisor.RunOpening:
    """Return the opening of a run of the profile's own model, which is not stored."""
    return advisor.RunOpening(profile=profile, layout=layout_message())

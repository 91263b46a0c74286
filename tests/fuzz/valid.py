"""Valid requests, to fill the registry and as a base for the strategies."""

from __future__ import annotations

import functools

from google.protobuf.message import Message

from fslr.advisor.v1 import advisor_service_pb2 as advisor
from fslr.advisor.v1 import (
    audit_service_pb2,
    layout_pb2,
    policy_pb2,
    policy_service_pb2,
    profile_pb2,
    profile_service_pb2,
    recipe_pb2,
    recipe_service_pb2,
    run_service_pb2,
    status_service_pb2,
)
from tests.building import NAMES, content_message, layout_message
from tests.fuzz.values import ALIASES, POLICIES, PROFILES, PROJECTS, RECIPES, RUNS

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
_LAYOUTS = {"gpt": NAMES, "mlp": _DEEP, "conv": _EXPERTS}
_PARENT = f"projects/{PROJECTS[0]}"
_POLICY = policy_pb2.Policy(
    depth_rule=policy_pb2.DEPTH_RULE_SUM,
    unmatched_rule=policy_pb2.UNMATCHED_RULE_HOLD,
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

_RECIPE = recipe_pb2.Recipe(
    description="Ours.",
    source="A test.",
    optimizers=["Adam"],
    conditions=["Blocks have a norm before each branch."],
    covers=[recipe_pb2.RATIO_BATCH],
    rows=[
        recipe_pb2.RecipeRow(
            kinds=[layout_pb2.GROUP_KIND_HIDDEN],
            residual_output=True,
            in_block=True,
            optimizers=["Adam"],
            factors=[
                recipe_pb2.RecipeFactor(
                    field=recipe_pb2.RECIPE_FIELD_LEARNING_RATE,
                    powers=[recipe_pb2.RatioPower(ratio=recipe_pb2.RATIO_FAN_IN, power=-1.0)],
                )
            ],
        ),
        recipe_pb2.RecipeRow(),
    ],
)
_RATIOS = recipe_pb2.TrainingRatios(head_size=2.0, batch=4.0, tokens=8.0, sequence=1.0)


def _layout(profile: str) -> layout_pb2.Layout:
    layout = layout_message(_LAYOUTS[profile])
    layout.frozen_names.append("frozen.weight")
    layout.frozen_parameter_counts.append(7)
    return layout


def _content(project: str, profile: str) -> profile_pb2.ProfileContent:
    content = content_message(_LAYOUTS[profile], labels={"team": "nlp", "size": "small"})
    content.docs = "# How to use it\nUnchanged."
    content.total_steps = 1_000
    content.group_aliases.add(pattern="blocks_*/up/kernel", target="blocks.*.up.weight")
    if profile == "gpt":
        content.correlated_groups.add(first=1, second=2)
        for point in content.points:
            point.correlations.append(0.5)
            point.relative_errors.extend([0.1] * 4)
            point.learning_rate = 0.01
            point.spreads.extend([0.2] * 4)
            point.weight_rms.extend([0.1] * 4)
            point.update_rms.extend([2.0] * 4)
    if profile == "mlp":
        content.policy.CopyFrom(_POLICY)
    if profile == "conv":
        content.policy_name = f"projects/{project}/policies/{POLICIES[0]}"
    return content


def _recommendation(profile: str) -> advisor.RecommendLRRequest:
    groups = len(_LAYOUTS[profile])
    return advisor.RecommendLRRequest(
        opening=advisor.RunOpening(
            run=f"{_PARENT}/runs/{RUNS[0]}",
            profile=f"{_PARENT}/profiles/{profile}",
            layout=_layout(profile),
            total_steps=1_000,
            policy=_POLICY,
            optimizer="Adam",
            base_learning_rate=0.01,
            batch_size=4,
            loss_name="cross-entropy",
            recipe=f"{_PARENT}/recipes/{RECIPES[0]}",
            training_ratios=_RATIOS,
        ),
        measurement=advisor.Measurement(
            step=10,
            unit_rates=[1.0 + i for i in range(groups)],
            relative_errors=[0.1] * groups,
            multipliers=[1.0] * groups,
            learning_rates=[0.01] * groups,
            interval_steps=10,
            probes=1,
            examples=4,
            loss=2.0,
            total_rate=1.0,
            shares=[1.0 / groups] * groups,
            weight_decays=[1e-4] * groups,
            linearity_error=0.1,
            advised=[True] * groups,
            weight_rms=[0.1] * groups,
            update_rms=[2.0] * groups,
        ),
    )


@functools.cache
def requests(method: str) -> tuple[Message, ...]:
    """Return valid requests of a method.

    Args:
        method: ``Service/Method``.

    Raises:
        KeyError: The method has no requests here; add one for each new method.
    """
    profiles = profile_service_pb2
    name, run = f"{_PARENT}/profiles/gpt", f"{_PARENT}/runs/{RUNS[0]}"
    policy, recipe = f"{_PARENT}/policies/{POLICIES[0]}", f"{_PARENT}/recipes/{RECIPES[0]}"
    recommendations = tuple(map(_recommendation, PROFILES))
    found: dict[str, tuple[Message, ...]] = {
        "AdvisorService/RecommendLR": recommendations,
        "AdvisorService/RecommendLROnce": recommendations,
        "AuditService/ListAuditEvents": (
            audit_service_pb2.ListAuditEventsRequest(parent=_PARENT, page_size=2),
        ),
        "PolicyService/SetPolicy": (
            policy_service_pb2.SetPolicyRequest(name=policy, policy=_POLICY),
        ),
        "PolicyService/GetPolicy": (policy_service_pb2.GetPolicyRequest(name=policy),),
        "PolicyService/DeletePolicy": (  # no profile names it
            policy_service_pb2.DeletePolicyRequest(name=f"{_PARENT}/policies/{POLICIES[1]}"),
        ),
        "PolicyService/ListPolicies": (
            policy_service_pb2.ListPoliciesRequest(parent=_PARENT, page_size=1),
        ),
        "ProfileService/RegisterProfile": tuple(
            profiles.RegisterProfileRequest(
                name=f"{_PARENT}/profiles/{profile}", content=_content(PROJECTS[0], profile)
            )
            for profile in PROFILES
        ),
        "ProfileService/GetProfile": (profiles.GetProfileRequest(name=name),),
        "ProfileService/ListProfiles": (
            profiles.ListProfilesRequest(parent=_PARENT, page_size=2, filter="labels.team=nlp"),
        ),
        "ProfileService/ValidateLayout": tuple(
            profiles.ValidateLayoutRequest(
                name=f"{_PARENT}/profiles/{profile}",
                layout=_layout(profile),
                policy=_POLICY,
                optimizer="Adam",
                total_steps=100,
                batch_size=32,
            )
            for profile in PROFILES
        ),
        "ProfileService/SetProfileAlias": (
            profiles.SetProfileAliasRequest(name=name, alias=ALIASES[0]),
        ),
        "ProfileService/DeleteProfileAlias": (
            profiles.DeleteProfileAliasRequest(name=f"{_PARENT}/profiles/mlp", alias=ALIASES[0]),
        ),
        "ProfileService/DeleteProfile": (
            profiles.DeleteProfileRequest(name=f"{_PARENT}/profiles/conv@1"),
        ),
        "RecipeService/SetRecipe": (
            recipe_service_pb2.SetRecipeRequest(name=recipe, recipe=_RECIPE),
        ),
        "RecipeService/GetRecipe": (
            recipe_service_pb2.GetRecipeRequest(name=recipe),
            recipe_service_pb2.GetRecipeRequest(name="mup-adam"),
        ),
        "RecipeService/DeleteRecipe": (  # no policy names it
            recipe_service_pb2.DeleteRecipeRequest(name=f"{_PARENT}/recipes/{RECIPES[1]}"),
        ),
        "RecipeService/ListRecipes": (
            recipe_service_pb2.ListRecipesRequest(parent=_PARENT, page_size=1),
        ),
        "RecipeService/ApplyRecipe": (
            recipe_service_pb2.ApplyRecipeRequest(
                name=recipe, layout=_layout("gpt"), profile=name, training_ratios=_RATIOS
            ),
            recipe_service_pb2.ApplyRecipeRequest(
                name="mup-adam",
                layout=_layout("mlp"),
                base_layout=_layout("mlp"),
                optimizer="AdamW",
            ),
        ),
        "RunService/ListRuns": (run_service_pb2.ListRunsRequest(parent=_PARENT, page_size=2),),
        "RunService/GetRun": (run_service_pb2.GetRunRequest(name=run),),
        "RunService/GetRunHistory": (run_service_pb2.GetRunHistoryRequest(name=run, page_size=2),),
        "RunService/ReportRunMetrics": (
            run_service_pb2.ReportRunMetricsRequest(
                name=run,
                reports=[
                    run_service_pb2.MetricReport(step=10, values={"auc": 0.5, "loss": 2.0}),
                    run_service_pb2.MetricReport(step=20, values={"auc": 0.6}),
                ],
            ),
        ),
        "RunService/ListRunMetrics": (
            run_service_pb2.ListRunMetricsRequest(name=run, page_size=2),
        ),
        "RunService/DeleteRun": (  # the other methods read a different one
            run_service_pb2.DeleteRunRequest(name=f"{_PARENT}/runs/{RUNS[1]}"),
        ),
        "RunService/WatchRun": (run_service_pb2.WatchRunRequest(name=run),),
        "StatusService/GetStatus": (status_service_pb2.GetStatusRequest(),),
    }
    return found[method]


def seeding() -> list[tuple[str, Message]]:
    """Return methods and requests that fill an empty registry, in order.

    No alias names the first version of a profile, so it can be deleted.
    """
    sent: list[tuple[str, Message]] = []
    for project in PROJECTS:
        for policy in POLICIES:
            name = f"projects/{project}/policies/{policy}"
            set_policy = policy_service_pb2.SetPolicyRequest(name=name, policy=_POLICY)
            sent.append(("PolicyService/SetPolicy", set_policy))
        for recipe in RECIPES:
            name = f"projects/{project}/recipes/{recipe}"
            set_recipe = recipe_service_pb2.SetRecipeRequest(name=name, recipe=_RECIPE)
            sent.append(("RecipeService/SetRecipe", set_recipe))
        for profile in PROFILES:
            name = f"projects/{project}/profiles/{profile}"
            sent.append(registration(name, content_message(_LAYOUTS[profile])))
            sent.append(registration(name, _content(project, profile)))
            sent += [
                (
                    "ProfileService/SetProfileAlias",
                    profile_service_pb2.SetProfileAliasRequest(name=f"{name}@2", alias=alias),
                )
                for alias in ALIASES
            ]
    for run in RUNS[:2]:
        recommendation = _recommendation(PROFILES[0])
        recommendation.opening.run = f"{_PARENT}/runs/{run}"
        sent.append(("AdvisorService/RecommendLROnce", recommendation))
    return sent


def registration(name: str, content: profile_pb2.ProfileContent) -> tuple[str, Message]:
    """Return the method and the request that register a profile."""
    return "ProfileService/RegisterProfile", profile_service_pb2.RegisterProfileRequest(
        name=name, content=content
    )

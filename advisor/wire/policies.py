"""Policies: messages to domain objects and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from advisor.policy import (
    Alignment,
    DepthRule,
    InvalidValueError,
    Policy,
    PriorRule,
    UnmatchedRule,
    WeightDecayRule,
    check_bounds_include_one,
)
from advisor.registry.resource_names import RecipeReference
from fslr.advisor.v1 import policy_pb2

_DEPTH_RULES = {
    policy_pb2.DEPTH_RULE_UNSPECIFIED: DepthRule.SUM,
    policy_pb2.DEPTH_RULE_SUM: DepthRule.SUM,
    policy_pb2.DEPTH_RULE_SQRT: DepthRule.SQRT,
    policy_pb2.DEPTH_RULE_COPY: DepthRule.COPY,
    policy_pb2.DEPTH_RULE_MEASURED: DepthRule.MEASURED,
}
_ALIGNMENTS = {
    policy_pb2.ALIGNMENT_UNSPECIFIED: Alignment.STEP,
    policy_pb2.ALIGNMENT_STEP: Alignment.STEP,
    policy_pb2.ALIGNMENT_PROGRESS: Alignment.PROGRESS,
}
_UNMATCHED_RULES = {
    policy_pb2.UNMATCHED_RULE_UNSPECIFIED: UnmatchedRule.ERROR,
    policy_pb2.UNMATCHED_RULE_ERROR: UnmatchedRule.ERROR,
    policy_pb2.UNMATCHED_RULE_HOLD: UnmatchedRule.HOLD,
    policy_pb2.UNMATCHED_RULE_NEAREST_ROLE: UnmatchedRule.NEAREST_ROLE,
}
_PRIOR_RULES = {
    policy_pb2.PRIOR_RULE_UNSPECIFIED: PriorRule.SHAPES,
    policy_pb2.PRIOR_RULE_SHAPES: PriorRule.SHAPES,
    policy_pb2.PRIOR_RULE_NONE: PriorRule.NONE,
}
_WEIGHT_DECAY_RULES = {
    policy_pb2.WEIGHT_DECAY_RULE_UNSPECIFIED: WeightDecayRule.COUPLED,
    policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT: WeightDecayRule.INDEPENDENT,
    policy_pb2.WEIGHT_DECAY_RULE_COUPLED: WeightDecayRule.COUPLED,
}
_POLICY_FIELDS = (
    "min_multiplier",
    "max_multiplier",
    "max_relative_error",
    "min_interval_steps",
    "max_interval_steps",
    "slew_limit",
    "max_linearity_error",
    "min_rate_ratio",
    "weigh_by_confidence",
    "first_step_only",
    "freeze_after_step",
    "target_relative_error",
    "max_probes",
    "averaging_window",
    "correction_bound",
    "lower_correction_bound",
    "rise_limit",
    "max_relative_update",
    "dense_start_steps",
    "reference_smoothing",
    "min_multiplier_without_prior",
    "max_multiplier_without_prior",
    "multiplier_values_per_octave",
)

_Rule = TypeVar("_Rule")


def _rule(field: str, table: Mapping[Any, _Rule], value: int) -> _Rule:
    try:
        return table[value]
    except KeyError:
        raise InvalidValueError(field, f"{value} is not a known value") from None


def _number_of(table: Mapping[Any, _Rule], rule: _Rule) -> Any:
    """Return the enum number of a rule, never 0, which stands for the default."""
    return next(number for number, value in table.items() if number and value is rule)


def policy_from_proto(message: policy_pb2.Policy) -> Policy:
    """Return the policy of a message, with defaults for absent rules.

    Raises:
        InvalidValueError: A rule is out of its range.
    """
    given = {field: getattr(message, field) for field in _POLICY_FIELDS if message.HasField(field)}  # type: ignore[arg-type]
    defaults = Policy()
    if "min_interval_steps" in given and "max_interval_steps" not in given:
        given["max_interval_steps"] = max(defaults.max_interval_steps, given["min_interval_steps"])
    if "max_interval_steps" in given and "min_interval_steps" not in given:
        given["min_interval_steps"] = min(defaults.min_interval_steps, given["max_interval_steps"])
    policy = Policy(
        depth_rule=_rule("depth_rule", _DEPTH_RULES, message.depth_rule),
        alignment=_rule("alignment", _ALIGNMENTS, message.alignment),
        unmatched_rule=_rule("unmatched_rule", _UNMATCHED_RULES, message.unmatched_rule),
        prior=_rule("prior", _PRIOR_RULES, message.prior),
        weight_decay=_rule("weight_decay", _WEIGHT_DECAY_RULES, message.weight_decay),
        recipe=recipe_name("recipe", message.recipe),
        **given,
    )
    check_bounds_include_one(policy)
    return policy


def policy_to_proto(policy: Policy) -> policy_pb2.Policy:
    """Return the message of a policy, with every rule that has a value set."""
    return policy_pb2.Policy(
        depth_rule=_number_of(_DEPTH_RULES, policy.depth_rule),
        alignment=_number_of(_ALIGNMENTS, policy.alignment),
        unmatched_rule=_number_of(_UNMATCHED_RULES, policy.unmatched_rule),
        prior=_number_of(_PRIOR_RULES, policy.prior),
        weight_decay=weight_decay_to_proto(policy.weight_decay),
        recipe=policy.recipe,
        **{field: getattr(policy, field) for field in _POLICY_FIELDS},
    )


def recipe_name(field: str, name: str) -> str:
    """Return the name of a recipe if it is valid or empty.

    Raises:
        InvalidValueError: It is not the name of a recipe.
    """
    return str(RecipeReference.parse(field, name)) if name else ""


def weight_decay_to_proto(rule: WeightDecayRule) -> policy_pb2.WeightDecayRule.ValueType:
    """Return the enum number of a rule about weight decay."""
    number: policy_pb2.WeightDecayRule.ValueType = _number_of(_WEIGHT_DECAY_RULES, rule)
    return number

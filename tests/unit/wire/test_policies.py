from __future__ import annotations

import json

import pytest

from advisor.policy import InvalidValueError, Policy, PriorRule, WeightDecayRule
from advisor.store.codec import decode_policy, encode_policy
from advisor.wire import policy_from_proto, policy_to_proto
from fslr.advisor.v1 import policy_pb2


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (
            policy_pb2.Policy(min_multiplier=1.5),
            r"min_multiplier: 1\.5 is above 1, the multiplier of groups without a recommendation",
        ),
        (
            policy_pb2.Policy(max_multiplier=0.5),
            r"max_multiplier: 0\.5 is below 1, .* change the run's learning rate",
        ),
        (
            policy_pb2.Policy(min_multiplier_without_prior=1.5),
            r"min_multiplier_without_prior: 1\.5 is above 1",
        ),
        (
            policy_pb2.Policy(max_multiplier_without_prior=0.5),
            r"max_multiplier_without_prior: 0\.5 is below 1",
        ),
    ],
)
def test_bounds_that_exclude_1_are_refused_with_the_reason(
    message: policy_pb2.Policy, error: str
) -> None:
    with pytest.raises(InvalidValueError, match=error):
        policy_from_proto(message)


def test_bounds_that_end_at_1_are_valid() -> None:
    assert policy_from_proto(policy_pb2.Policy(min_multiplier=1.0)).min_multiplier == 1.0
    assert policy_from_proto(policy_pb2.Policy(max_multiplier=1.0)).max_multiplier == 1.0


def test_a_stored_policy_whose_bounds_exclude_1_stays_readable() -> None:
    stored = Policy(min_multiplier=2.0)
    assert decode_policy(encode_policy(stored)) == stored


def test_rules_about_priors_are_unchanged_after_conversion_and_storage() -> None:
    policy = Policy(
        prior=PriorRule.NONE,
        correction_bound=3.0,
        lower_correction_bound=5.0,
        rise_limit=1.5,
        max_relative_update=4.0,
        weight_decay=WeightDecayRule.COUPLED,
        dense_start_steps=16,
        min_multiplier_without_prior=0.5,
        max_multiplier_without_prior=8.0,
    )
    assert policy_from_proto(policy_to_proto(policy)) == policy
    assert decode_policy(encode_policy(policy)) == policy


def test_a_policy_stored_before_priors_existed_continues_without_them() -> None:
    rules = json.loads(encode_policy(Policy()))
    for name in ("prior", "correction_bound", "weight_decay"):
        rules.pop(name, None)
    old = decode_policy(json.dumps(rules).encode())
    assert (old.prior, old.weight_decay) == (PriorRule.NONE, WeightDecayRule.COUPLED)


def test_smoothing_of_references_is_unchanged_after_conversion_and_storage() -> None:
    policy = Policy(reference_smoothing=0.5)
    assert policy_from_proto(policy_to_proto(policy)) == policy
    assert decode_policy(encode_policy(policy)) == policy

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from advisor.comparison import Kind, Training, differences, family, nearest_roles_used, warmup
from advisor.policy import DepthRule, Layout, UnmatchedRule, map_layout
from advisor.profiles import Provenance
from tests.building import profile_of

PROVENANCE = Provenance(optimizer="AdamW", batch_size=32, loss="cross-entropy")


@pytest.mark.parametrize(
    ("training", "kind", "words"),
    [
        (Training(base_learning_rate=0.02), Kind.BASE_LEARNING_RATE, "is 0.02, the profile's 0.01"),
        (Training(optimizer="SGD"), Kind.OPTIMIZER, "optimizer is SGD, .* recorded with AdamW"),
        (Training(batch_size=64), Kind.BATCH_SIZE, "batch size is 64, the profile's 32"),
        (Training(loss="MSE"), Kind.LOSS, "loss is MSE, the profile's cross-entropy"),
    ],
)
def test_each_difference_is_told_with_both_values(
    training: Training, kind: Kind, words: str
) -> None:
    (found,) = differences(0.01, PROVENANCE, training)
    assert found.kind is kind
    with pytest.raises(ValueError, match=words):
        raise ValueError(found.message)


@pytest.mark.parametrize(
    "training",
    [
        Training(),
        Training(0.01, "Adam", 32, "Cross Entropy"),
        Training(0.01005, "torch.adamw".removeprefix("torch."), 32, "cross_entropy"),
    ],
)
def test_what_is_unknown_or_the_same_in_other_words_is_no_difference(training: Training) -> None:
    assert differences(0.01, PROVENANCE, training) == []
    assert differences(0.01, Provenance(), Training(0.01, "SGD", 7, "MSE")) == []


def test_an_optimizer_that_nobody_knows_is_its_own_family() -> None:
    assert family("AdamW") == family("adam") == family("Fused-Adam")
    assert family("MyOptimizer") != family("Adam")


def recorded_with(rates: list[float]) -> float:
    """Return how many of the first three steps of a run at full rate are warned about."""
    profile = dataclasses.replace(
        profile_of(["a"], [[1.0]] * len(rates)), learning_rates=np.array(rates)
    )
    training = Training(base_learning_rate=0.01)
    return sum(len(warmup(profile, step, training, 0.01)) for step in (0, 1, 2))


def test_a_profile_recorded_with_warm_up_is_told_to_a_run_without() -> None:
    assert recorded_with([0.001, 0.004, 0.01, 0.01]) == 2
    assert recorded_with([0.01, 0.01, 0.01]) == 0
    assert recorded_with([0.01, 0.005, 0.001]) == 0  # decay is no warm-up


def test_a_run_that_warms_up_is_told_that_the_profile_did_not() -> None:
    profile = dataclasses.replace(
        profile_of(["a"], [[1.0]] * 2, steps=[0, 100]), learning_rates=np.array([0.01, 0.01])
    )
    (found,) = warmup(profile, 3, Training(base_learning_rate=0.01), 0.001)
    assert "the run warms up and the profile was recorded without" in found.message
    unknown = dataclasses.replace(profile, learning_rates=None)
    assert warmup(unknown, 3, Training(base_learning_rate=0.01), 0.001) == []


def test_the_nearest_roles_that_stand_in_are_named() -> None:
    base, run = Layout.of_names(["b.0.attn.qkv.w"]), Layout.of_names(["b.0.attn.q.w"])
    mapping = map_layout(run, base, DepthRule.SUM, unmatched_rule=UnmatchedRule.NEAREST_ROLE)
    (found,) = nearest_roles_used(run, base, mapping)
    assert "b.*.attn.q.w -> b.*.attn.qkv.w" in found.message
    assert nearest_roles_used(base, base, map_layout(base, base, DepthRule.SUM)) == []

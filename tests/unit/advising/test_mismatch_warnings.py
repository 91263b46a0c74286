from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from advisor.advising.mismatch_warnings import (
    Kind,
    Training,
    differences,
    family,
    nearest_roles_used,
    warmup,
)
from advisor.policy import DepthRule, Layout, Measurement, UnmatchedRule, map_layout
from advisor.registry.profiles import Provenance
from tests.building import profile_of

PROVENANCE = Provenance(optimizer="AdamW", batch_size=32, loss_name="cross-entropy")


@pytest.mark.parametrize(
    ("training", "kind", "words"),
    [
        (Training(base_learning_rate=0.02), Kind.BASE_LEARNING_RATE, "is 0.02, the profile's 0.01"),
        (Training(optimizer="SGD"), Kind.OPTIMIZER, "optimizer is SGD, .* recorded with AdamW"),
        (Training(batch_size=64), Kind.BATCH_SIZE, "batch size is 64, the profile's 32"),
        (Training(loss_name="MSE"), Kind.LOSS, "loss is MSE, the profile's cross-entropy"),
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
        Training(0.01005, "torch.optim.AdamW", 32, "cross_entropy"),
    ],
)
def test_what_is_unknown_or_the_same_in_other_words_is_no_difference(training: Training) -> None:
    assert differences(0.01, PROVENANCE, training) == []
    assert differences(0.01, Provenance(), Training(0.01, "SGD", 7, "MSE")) == []


def test_an_optimizer_that_nobody_knows_is_its_own_family() -> None:
    assert family("MyOptimizer") != family("Adam")
    assert family("million") == "million"
    assert family("camel") == "camel"


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (("AdamW", "adam", "Fused-Adam", "adamw_torch_fused", "PagedAdamW8bit", "optax.adamw",
          "DeepSpeedCPUAdam", "NAdam", "FusedLAMB", "AdamW(momentum=0.9)",
          "nesterov-adam"), "Adam"),
        (("SGD", "torch.optim.SGD", "sgd with momentum", "Momentum"), "SGD"),
        (("RMSprop", "rmsprop_momentum"), "RMSprop"),
        (("Lion", "lion_8bit", "PagedLion"), "sign descent"),
        (("Adafactor", "adafactor"), "factored"),
        (("adagrad", "Adagrad"), "Adagrad"),
        (("Muon", "muon", "MuonWithAuxAdam"), "orthogonalized"),
    ],
)  # fmt: skip
def test_the_family_is_found_in_every_spelling(names: tuple[str, ...], same: str) -> None:
    assert {family(name) for name in names} == {same}


STEPS = (0, 25, 50, 100, 200, 500, 900)


def schedule(warmup_steps: int, *, decaying: bool = False) -> np.ndarray[tuple[int], Any]:
    steps = np.array(STEPS)
    rates = np.minimum(steps / max(warmup_steps, 1), 1.0) if warmup_steps else np.ones(len(steps))
    return np.array(rates * (np.cos(steps / 1000 * np.pi / 2) if decaying else 1.0) * 0.01)


def warned(
    recorded: np.ndarray[tuple[int], Any], run: np.ndarray[tuple[int], Any]
) -> dict[int, str]:
    """Return what is said at which steps."""
    profile = profile_of(["a"], [[1.0]] * len(STEPS), steps=STEPS)
    profile = dataclasses.replace(profile, learning_rates=recorded, total_steps=1000)
    told = {}
    for step, rate in zip(STEPS, run, strict=True):
        one = np.ones(1)
        measurement = Measurement(step, one, one, one, learning_rate=float(rate))
        found = warmup(profile, step, Training(base_learning_rate=0.01), measurement)
        if found:
            told[step] = found[0].message
    return told


def test_a_profile_recorded_with_warm_up_is_told_to_a_run_without() -> None:
    told = warned(schedule(100), schedule(0))
    assert list(told) == [0, 25]
    assert "at step 25 the profile's learning rate is 25% of its peak, the run's 100%" in told[25]
    assert list(warned(schedule(400), schedule(50))) == [50, 100]


def test_a_run_that_warms_up_is_told_that_the_profile_did_not() -> None:
    told = warned(schedule(0), schedule(200))
    assert list(told) == [0, 25, 50]
    assert "the run warms up and the profile was recorded without" in told[0]
    assert list(warned(schedule(25), schedule(200))) == [25, 50]


def test_equal_schedules_and_decays_are_no_warm_up() -> None:
    assert warned(schedule(100), schedule(100)) == {}
    assert warned(schedule(0), schedule(0, decaying=True)) == {}
    assert warned(schedule(0, decaying=True), schedule(0)) == {}


def test_what_is_not_known_is_not_compared() -> None:
    profile = profile_of(["a"], [[1.0]] * 2)
    one = np.ones(1)
    unknown = Measurement(0, one, one, one)
    training = Training(base_learning_rate=0.01)
    assert warmup(profile, 0, training, dataclasses.replace(unknown, learning_rate=0.001)) == []
    profile = dataclasses.replace(profile, learning_rates=np.array([0.01, 0.01]))
    assert warmup(profile, 0, training, unknown) == []


def test_the_nearest_roles_that_stand_in_are_named() -> None:
    base, run = Layout.of_names(["b.0.attn.qkv.w"]), Layout.of_names(["b.0.attn.q.w"])
    mapping = map_layout(run, base, DepthRule.SUM, unmatched_rule=UnmatchedRule.NEAREST_ROLE)
    (found,) = nearest_roles_used(run, base, mapping)
    assert "b.*.attn.q.w -> b.*.attn.qkv.w" in found.message
    assert nearest_roles_used(base, base, map_layout(base, base, DepthRule.SUM)) == []

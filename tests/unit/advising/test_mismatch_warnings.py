from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from advisor.advising.mismatch_warnings import (
    DifferenceKind,
    Training,
    mask_difference,
    nearest_roles_used,
    opening_differences,
    schedule_difference,
    warmup_difference,
    weight_decay_difference,
)
from advisor.policy import DepthRule, Layout, Measurement, UnmatchedRule, map_layout
from advisor.policy.optimizer_families import optimizer_family
from advisor.registry.profiles import Provenance
from tests.building import profile_of

PROVENANCE = Provenance(optimizer="AdamW", batch_size=32, loss_name="cross-entropy")


@pytest.mark.parametrize(
    ("training", "kind", "words"),
    [
        (
            Training(base_learning_rate=0.02),
            DifferenceKind.BASE_LEARNING_RATE,
            "is 0.02, the profile's 0.01",
        ),
        (
            Training(optimizer="SGD"),
            DifferenceKind.OPTIMIZER,
            "optimizer is SGD, .* recorded with AdamW",
        ),
        (Training(batch_size=64), DifferenceKind.BATCH_SIZE, "batch size is 64, the profile's 32"),
        (
            Training(loss_name="MSE"),
            DifferenceKind.LOSS,
            "loss is MSE, the profile's cross-entropy",
        ),
    ],
)
def test_each_difference_is_reported_with_both_values(
    training: Training, kind: DifferenceKind, words: str
) -> None:
    (found,) = opening_differences(0.01, PROVENANCE, training)
    assert found.kind is kind
    assert re.search(words, found.message)


@pytest.mark.parametrize(
    "training",
    [
        Training(),
        Training(0.01, "Adam", 32, "Cross Entropy"),
        Training(0.01005, "torch.optim.AdamW", 32, "cross_entropy"),
    ],
)
def test_unknown_values_and_alternative_spellings_are_not_differences(training: Training) -> None:
    assert opening_differences(0.01, PROVENANCE, training) == []
    assert opening_differences(0.01, Provenance(), Training(0.01, "SGD", 7, "MSE")) == []


def test_an_unknown_optimizer_is_its_own_family() -> None:
    assert optimizer_family("MyOptimizer") != optimizer_family("Adam")
    assert optimizer_family("million") == "million"
    assert optimizer_family("camel") == "camel"


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
def test_optimizer_families_are_recognized_in_all_spellings(
    names: tuple[str, ...], same: str
) -> None:
    assert {optimizer_family(name) for name in names} == {same}


STEPS = (0, 25, 50, 100, 200, 500, 900)


def schedule(warmup_steps: int, *, decaying: bool = False) -> np.ndarray[tuple[int], Any]:
    steps = np.array(STEPS)
    rates = np.minimum(steps / max(warmup_steps, 1), 1.0) if warmup_steps else np.ones(len(steps))
    return np.array(rates * (np.cos(steps / 1000 * np.pi / 2) if decaying else 1.0) * 0.01)


def warned(
    recorded: np.ndarray[tuple[int], Any], run: np.ndarray[tuple[int], Any]
) -> dict[int, str]:
    """Return the warm-up warnings by step."""
    profile = profile_of(["a"], [[1.0]] * len(STEPS), steps=STEPS)
    profile = dataclasses.replace(profile, learning_rates=recorded, total_steps=1000)
    warnings = {}
    for step, rate in zip(STEPS, run, strict=True):
        one = np.ones(1)
        measurement = Measurement(step, one, one, one, learning_rate=float(rate))
        found = warmup_difference(profile, step, Training(base_learning_rate=0.01), measurement)
        if found:
            warnings[step] = found[0].message
    return warnings


def test_a_run_without_warm_up_is_warned_of_a_profile_with_warm_up() -> None:
    warnings = warned(schedule(100), schedule(0))
    assert list(warnings) == [0, 25]
    assert (
        "at step 25 the profile's learning rate is 25% of its peak, the run's 100%" in warnings[25]
    )
    assert list(warned(schedule(400), schedule(50))) == [50, 100]


def test_a_run_with_warm_up_is_warned_of_a_profile_without() -> None:
    warnings = warned(schedule(0), schedule(200))
    assert list(warnings) == [0, 25, 50]
    assert "the run warms up and the profile was recorded without" in warnings[0]
    assert list(warned(schedule(25), schedule(200))) == [25, 50]


def test_equal_schedules_and_decays_cause_no_warm_up_warning() -> None:
    assert warned(schedule(100), schedule(100)) == {}
    assert warned(schedule(0), schedule(0, decaying=True)) == {}
    assert warned(schedule(0, decaying=True), schedule(0)) == {}


def schedule_warnings(
    recorded: np.ndarray[tuple[int], Any], run: np.ndarray[tuple[int], Any]
) -> dict[int, str]:
    """Return the schedule warnings by step."""
    profile = profile_of(["a"], [[1.0]] * len(STEPS), steps=STEPS)
    profile = dataclasses.replace(profile, learning_rates=recorded, total_steps=1000)
    one, training = np.ones(1), Training(base_learning_rate=0.01)
    found = {
        step: schedule_difference(
            profile, step, training, Measurement(step, one, one, one, learning_rate=float(rate))
        )
        for step, rate in zip(STEPS, run, strict=True)
    }
    return {step: differences[0].message for step, differences in found.items() if differences}


def test_a_run_is_warned_once_of_a_profile_whose_learning_rate_decays_differently() -> None:
    """At step 900 of 1000, the decaying learning rate is 16% of its peak."""
    constant, decaying = schedule(0), schedule(0, decaying=True)
    higher = schedule_warnings(decaying, constant)
    assert list(higher) == [900]
    assert higher[900].startswith(
        "the profile's learning rate is 16% of its peak at its last point, step 900, and the run's "
        "is more than 2 times as high at the same time"
    )
    lower = schedule_warnings(constant, decaying)
    assert list(lower) == [900]
    assert "the run's is more than 2 times as low" in lower[900]
    assert "or set alignment=progress" in lower[900]
    assert len(set(schedule_warnings(decaying, 3 * constant).values())) == 1


def test_equal_decays_and_different_warm_ups_cause_no_schedule_warning() -> None:
    decaying = schedule(100, decaying=True)
    assert schedule_warnings(decaying, decaying) == {}
    assert schedule_warnings(decaying, 0.6 * decaying) == {}
    assert schedule_warnings(schedule(0), schedule(50)) == {}


def test_unknown_learning_rates_are_not_compared() -> None:
    profile = profile_of(["a"], [[1.0]] * 2)
    one = np.ones(1)
    unknown = Measurement(0, one, one, one)
    training = Training(base_learning_rate=0.01)
    assert (
        warmup_difference(profile, 0, training, dataclasses.replace(unknown, learning_rate=0.001))
        == []
    )
    profile = dataclasses.replace(profile, learning_rates=np.array([0.01, 0.01]))
    assert warmup_difference(profile, 0, training, unknown) == []


@pytest.mark.parametrize(
    ("recorded", "own", "words"),
    [
        (
            False,
            True,
            "the run measures unit rates without weight decay, and the profile's are with",
        ),
        (
            True,
            False,
            "the run measures unit rates with weight decay, and the profile's are without",
        ),
        (True, True, ""),
        (False, False, ""),
    ],
)
def test_unit_rates_with_and_without_weight_decay_differ(
    recorded: bool, own: bool, words: str
) -> None:
    profile = dataclasses.replace(profile_of(["a"], [[1.0]]), excludes_weight_decay=recorded)
    one = np.ones(1)
    measurement = Measurement(0, one, one, one, excludes_weight_decay=own)
    found = weight_decay_difference(profile, measurement)
    assert [words in difference.message for difference in found] == [True] * bool(words)
    assert [f"exclude_weight_decay={recorded}" in d.message for d in found] == [True] * bool(words)


@pytest.mark.parametrize(
    ("recorded", "own", "words"),
    [
        (
            "labels",
            "",
            r"all of them, .* over those that 'labels' weighs: .* with mask",
        ),
        (
            "",
            "labels",
            r"those that 'labels' weighs, .* over all of them: .* no mask",
        ),
        ("labels", "pads", r"those that 'pads' .* those that 'labels' weighs: .* mask='labels'"),
        ("labels", "labels", ""),
        ("", "", ""),
    ],
)
def test_unit_rates_over_different_output_elements_differ(
    recorded: str, own: str, words: str
) -> None:
    profile = dataclasses.replace(profile_of(["a"], [[1.0]]), mask=recorded)
    one = np.ones(1)
    found = mask_difference(profile, Measurement(0, one, one, one, mask=own))
    assert [bool(re.search(words, d.message)) for d in found] == [True] * bool(words)


def test_nearest_roles_in_use_are_listed() -> None:
    base, run = Layout.of_names(["b.0.attn.qkv.w"]), Layout.of_names(["b.0.attn.q.w"])
    mapping = map_layout(run, base, DepthRule.SUM, unmatched_rule=UnmatchedRule.NEAREST_ROLE)
    (found,) = nearest_roles_used(run, base, mapping)
    assert "b.*.attn.q.w -> b.*.attn.qkv.w" in found.message
    assert nearest_roles_used(base, base, map_layout(base, base, DepthRule.SUM)) == []

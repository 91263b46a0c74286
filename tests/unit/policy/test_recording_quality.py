from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advisor.policy import FlawKind, Policy, Profile, recording_flaws
from tests.building import profile_of

STEPS = (0, 25, 50, 75, 100, 125, 150, 175, 200, 225, 250, 275)
GROUPS = tuple(f"blocks.{i}.up.weight" for i in range(6))


def recorded(
    rates: NDArray[np.float64] | None = None, *, noise: float = 0.3, **changes: Any
) -> Profile:
    """Return a recording of falling rates with noise; ``rates`` multiply them."""
    random = np.random.default_rng(0)
    steps = np.array(STEPS)
    level = 8.0 / (1 + steps / 25)[:, None]
    noisy = level * np.exp(noise * random.standard_normal((len(steps), len(GROUPS))))
    profile = profile_of(GROUPS, (noisy if rates is None else noisy * rates).tolist(), STEPS)
    return dataclasses.replace(profile, **changes)


def factors(**spikes: float) -> NDArray[np.float64]:
    """Return factors of 1, and those given by step (``step100=9``), in four of six groups."""
    found = np.ones((len(STEPS), len(GROUPS)))
    for step, factor in spikes.items():
        found[STEPS.index(int(step.removeprefix("step"))), :4] = factor
    return found


def flaws(profile: Profile) -> dict[FlawKind, str]:
    return {flaw.kind: flaw.message for flaw in recording_flaws(profile)}


def test_a_noisy_recording_whose_rates_fall_has_no_flaws() -> None:
    assert recording_flaws(recorded()) == []


@pytest.mark.parametrize("step", [25, 100, 250])
def test_a_spike_in_most_groups_is_found_with_its_step_and_its_size(step: int) -> None:
    found = flaws(recorded(factors(**{f"step{step}": 12.0}), noise=0.05))
    assert list(found) == [FlawKind.SPIKES]
    assert found[FlawKind.SPIKES].startswith(
        f"the unit rates spike at step {step}: 4 of 6 groups are 1"
    )
    assert (
        "record again at a lower learning rate or with a longer warm-up" in found[FlawKind.SPIKES]
    )


def test_a_spike_at_the_last_point_is_found() -> None:
    message = flaws(recorded(factors(step275=12.0)))[FlawKind.SPIKES]
    assert "the unit rates spike at step 275" in message


def test_several_spikes_are_listed_with_the_worst() -> None:
    profile = recorded(factors(step100=8.0, step200=20.0), noise=0.05)
    message = flaws(profile)[FlawKind.SPIKES]
    assert message.startswith("the unit rates spike at steps 100, 200: ")


def test_a_spike_in_one_group_of_six_is_not_one_of_the_recording() -> None:
    rates = np.ones((len(STEPS), len(GROUPS)))
    rates[4, 0] = 100.0
    assert recording_flaws(recorded(rates)) == []


@pytest.mark.parametrize("factor", [0.05, 2.0])
def test_dips_and_rises_within_a_factor_of_3_are_not_spikes(factor: float) -> None:
    assert recording_flaws(recorded(factors(step100=factor), noise=0.05)) == []


def test_a_rise_within_two_usual_deviations_of_its_groups_is_not_a_spike() -> None:
    spike = factors(step100=5.0)
    assert FlawKind.SPIKES in flaws(recorded(spike, noise=0.1))
    assert FlawKind.SPIKES not in flaws(recorded(spike, noise=0.8))


def test_rates_that_jump_from_point_to_point_are_a_flaw_unless_the_noise_explains_it() -> None:
    profile = recorded(noise=1.6)
    assert (
        "the unit rates of a point usually differ from those around it by a factor of "
        in (flaws(profile)[FlawKind.UNSTEADY])
    )
    errors = np.full((len(STEPS), len(GROUPS)), 1.6, dtype=np.float32)
    noisy = dataclasses.replace(profile, relative_errors=errors)
    assert FlawKind.UNSTEADY not in flaws(noisy)


def test_a_level_that_changes_for_good_is_not_a_spike() -> None:
    rates = np.ones((len(STEPS), len(GROUPS)))
    rates[6:] = 0.1
    assert FlawKind.SPIKES not in flaws(recorded(rates, noise=0.05))


def test_zeros_and_points_at_learning_rate_0_are_not_neighbors_of_spikes() -> None:
    learning_rates = np.full(len(STEPS), 0.01)
    learning_rates[0] = 0.0
    rates = np.ones((len(STEPS), len(GROUPS)))
    rates[0], rates[4, :] = 1e-6, 0.0
    assert recording_flaws(recorded(rates, learning_rates=learning_rates)) == []


def test_a_spike_is_found_in_three_points() -> None:
    profile = profile_of(GROUPS, [[1.0] * 6, [50.0] * 6, [1.0] * 6], [0, 10, 20])
    assert "6 of 6 groups are 50 times" in flaws(profile)[FlawKind.SPIKES]


def test_one_point_is_a_flaw_unless_the_training_has_one_step() -> None:
    one = dataclasses.replace(profile_of(["a"], [[1.0]], [3]), total_steps=100)
    assert flaws(one) == {
        FlawKind.ONE_POINT: "only step 3 of 100 is recorded: its unit rates serve as the reference "
        "of the whole training, and rates change most at its start; record more steps"
    }
    assert recording_flaws(dataclasses.replace(profile_of(["a"], [[1.0]]), total_steps=1)) == []


def test_a_recording_of_the_first_part_of_a_training_is_a_flaw() -> None:
    found = flaws(recorded(total_steps=3000))
    assert (
        "the last recorded step is 275 of 3000 planned ones" in found[FlawKind.PART_OF_THE_TRAINING]
    )
    assert recording_flaws(recorded(total_steps=551)) == []


@pytest.mark.parametrize(
    ("peak", "message"),
    [
        (0.05, "learning rates of up to 0.05 are recorded, but the base learning rate is 0.01"),
        (0.002, "the largest recorded learning rate is 0.002, but the base learning rate is 0.01"),
    ],
)
def test_learning_rates_far_from_the_base_learning_rate_are_a_flaw(
    peak: float, message: str
) -> None:
    schedule = np.linspace(peak, peak / 10, len(STEPS))
    found = flaws(recorded(learning_rates=schedule, base_learning_rate=0.01))
    assert found[FlawKind.LEARNING_RATE].startswith(message)
    assert recording_flaws(recorded(learning_rates=schedule, base_learning_rate=peak)) == []


def test_relative_errors_above_the_limit_of_the_policy_are_a_flaw() -> None:
    errors = np.full((len(STEPS), len(GROUPS)), 0.2, dtype=np.float32)
    errors[:, :2] = 0.7
    profile = recorded(relative_errors=errors)
    assert flaws(profile)[FlawKind.NOISE].startswith(
        "2 of 6 groups have relative errors above the policy's max_relative_error 0.5 at most "
    )
    assert recording_flaws(
        dataclasses.replace(profile, policy=Policy(max_relative_error=0.8))
    ) == []  # fmt: skip


def test_groups_that_never_moved_are_named() -> None:
    rates = np.ones((len(STEPS), len(GROUPS)))
    rates[:, 1] = 0.0
    assert flaws(recorded(rates)) == {
        FlawKind.ZERO_RATES: "1 of 6 groups never moved, so runs hold its multiplier: "
        "blocks.1.up.weight; record until it moves, or freeze it"
    }
    rates[3:, 1] = 1.0  # zero only at the start, as a zero-initialized projection's
    assert recording_flaws(recorded(rates)) == []

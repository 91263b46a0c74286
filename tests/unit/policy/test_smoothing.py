from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from advisor.policy import Profile, Reference
from advisor.policy.smoothing import smooth
from tests.building import profile_of

Floats = NDArray[np.float64]
STEPS = np.arange(0.0, 1000.0, 25.0)
WIDTH = 0.5


def smoothed_logs(logs: Floats, *, steps: Floats = STEPS, half_width: float = WIDTH) -> Floats:
    known = np.ones(logs.shape, dtype=np.bool_)
    return smooth(steps, logs, known, np.zeros(logs.shape), half_width).logs


def trajectories(groups: int) -> Floats:
    """Logarithms of rates that fall fast at first, then slowly, with a bend at a warm-up's end."""
    places = np.log1p(STEPS)[:, None]
    slopes = np.linspace(-1.5, 0.5, groups)
    logs: Floats = slopes * places + 0.5 * np.tanh(2 * (places - np.log(200)))
    return logs


def profile_from(logs: Floats, errors: float = 0.0) -> Profile:
    names = [f"layer{i}.weight" for i in range(logs.shape[1])]
    profile = profile_of(names, np.exp(logs).tolist(), steps=STEPS.astype(int).tolist())
    return dataclasses.replace(
        profile, relative_errors=np.full(logs.shape, errors, dtype=np.float32)
    )


@given(
    slope=st.floats(-3, 3),
    steps=st.lists(st.integers(0, 10**6), min_size=1, max_size=30, unique=True).map(sorted),
    half_width=st.floats(0.01, 5),
    errors=st.lists(st.floats(0, 2), min_size=30, max_size=30),
)
def test_logarithms_linear_in_that_of_the_step_are_reproduced(
    slope: float, steps: list[int], half_width: float, errors: list[float]
) -> None:
    at = np.array(steps, dtype=np.float64)
    logs = (1 + slope * np.log1p(at))[:, None]
    relative_errors = np.array(errors)[: len(at), None]
    known = np.ones(logs.shape, dtype=np.bool_)
    smoothed = smooth(at, logs, known, relative_errors, half_width)
    assert smoothed.logs == pytest.approx(logs, abs=1e-6)
    assert smoothed.spreads == pytest.approx([0.0], abs=1e-6)


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=30),
    st.floats(0.01, 5),
)
def test_a_smoothed_logarithm_lies_between_those_of_its_window(
    values: list[float], half_width: float
) -> None:
    steps = np.arange(0.0, 10.0 * len(values), 10.0)
    logs = np.array(values)
    smoothed = smoothed_logs(logs[:, None], steps=steps, half_width=half_width)[:, 0]
    for place, value in zip(np.log1p(steps), smoothed, strict=True):
        window = logs[np.abs(np.log1p(steps) - place) < half_width]
        assert window.min() - 1e-9 <= value <= window.max() + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_a_noisy_recording_falls(seed: int) -> None:
    """Noise of 0.3 at each point, and a factor of 10 at one point in 20."""
    random = np.random.default_rng(seed)
    truth = trajectories(groups=60)
    spikes = np.log(10) * (random.random(truth.shape) < 0.05)
    noisy = truth + 0.3 * random.standard_normal(truth.shape) + spikes
    late = STEPS >= 200
    before = np.abs(noisy - truth)[late]
    after = np.abs(smoothed_logs(noisy) - truth)[late]
    assert after.mean() < 0.5 * before.mean()
    assert np.quantile(after, 0.99) < 0.4 * np.quantile(before, 0.99)


def test_the_error_of_a_smoothed_rate_is_the_standard_error_of_the_line() -> None:
    random = np.random.default_rng(0)
    truth = np.zeros((len(STEPS), 400))
    noisy = truth + 0.2 * random.standard_normal(truth.shape)
    known = np.ones(truth.shape, dtype=np.bool_)
    smoothed = smooth(STEPS, noisy, known, np.zeros(truth.shape), WIDTH)
    assert np.mean(smoothed.spreads) == pytest.approx(0.2, rel=0.1)
    real = np.sqrt(np.square(smoothed.logs - truth).mean(axis=1))
    stated = np.sqrt(np.square(smoothed.errors).mean(axis=1))
    assert stated[4:] == pytest.approx(real[4:], rel=0.25)
    assert stated[:2].tolist() == [0.0, 0.0]  # no neighbors: the recorded values and errors


def test_the_first_points_keep_their_rates_while_later_ones_are_smoothed() -> None:
    logs = np.zeros((len(STEPS), 1))
    logs[0], logs[20] = 5.0, 3.0
    smoothed = smoothed_logs(logs)[:, 0]
    assert smoothed[0] == 5.0
    assert smoothed[1:] == pytest.approx(np.zeros(len(STEPS) - 1), abs=1e-9)


@pytest.mark.parametrize("height", [3.0, -3.0])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_one_spike_moves_neither_its_own_point_nor_its_neighbors(
    height: float, noise: float
) -> None:
    random = np.random.default_rng(1)
    logs = trajectories(groups=5) + noise * random.standard_normal((len(STEPS), 5))
    spiked = logs.copy()
    spiked[25] += height
    assert smoothed_logs(spiked) == pytest.approx(smoothed_logs(logs), abs=0.02 + 2 * noise)


def test_the_reference_is_read_from_smoothed_rates_and_errors() -> None:
    logs = np.zeros((len(STEPS), 2))
    logs[20, 0] = 3.0
    profile = profile_from(logs, errors=0.2)
    plain, smoothed = Reference(profile), Reference(profile, smoothing=WIDTH)
    assert plain.at(500) == pytest.approx([np.exp(3.0), 1.0])
    assert smoothed.at(500) == pytest.approx([1.0, 1.0], rel=1e-6)
    assert plain.errors_at(800) == pytest.approx([0.2, 0.2])
    assert (smoothed.errors_at(800) < 0.1).all()


def test_zeros_keep_their_meaning_when_smoothed() -> None:
    rates = np.ones((len(STEPS), 2))
    rates[:4, 0] = 0.0  # has not moved yet
    rates[20, 0] = 0.0  # not recorded
    profile = profile_of(["a", "b"], rates.tolist(), steps=STEPS.astype(int).tolist())
    reference = Reference(profile, smoothing=WIDTH)
    assert reference.at(75).tolist() == [0.0, 1.0]
    assert reference.at(100) == pytest.approx([1.0, 1.0])
    assert reference.at(500) == pytest.approx([1.0, 1.0])


def test_one_point_is_used_unchanged() -> None:
    reference = Reference(profile_of(["a"], [[3.0]]), smoothing=WIDTH)
    assert reference.at(10) == pytest.approx([3.0])
    assert reference.errors_at(10).tolist() == [0.0]

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import DepthRule, InvalidValueError, Policy, Reference
from tests.building import profile_of


def test_rates_are_interpolated_in_log_space_between_points() -> None:
    reference = Reference(profile_of(["a"], [[1.0], [100.0]], steps=[0, 10]))
    assert reference.at(5) == pytest.approx([10.0])


def test_rates_are_constant_before_the_first_and_after_the_last_point() -> None:
    reference = Reference(profile_of(["a"], [[2.0], [8.0]], steps=[10, 20]))
    assert [float(reference.at(step)[0]) for step in (0, 10, 20, 1e9)] == pytest.approx([
        2.0,
        2.0,
        8.0,
        8.0,
    ])


def test_a_zero_among_positive_rates_counts_as_not_recorded() -> None:
    rates = [[1.0, 0.0], [0.0, 0.0], [4.0, 0.0]]
    reference = Reference(profile_of(["a", "b"], rates, steps=[10, 20, 30]))
    assert reference.at(20) == pytest.approx([2.0, 0.0])
    assert reference.at(15) == pytest.approx([2**0.5, 0.0])


def test_zeros_at_the_ends_are_kept() -> None:
    """A layer before a zero-initialized one has no rate at first, and later rates say nothing."""
    rates = [[0.0, 1.0], [4.0, 2.0], [4.0, 0.0]]
    reference = Reference(profile_of(["A", "B"], rates, steps=[0, 10, 20]))
    assert reference.at(0).tolist() == [0.0, 1.0]
    assert reference.at(5) == pytest.approx([0.0, 2**0.5])
    assert reference.at(10).tolist() == [4.0, 2.0]
    assert reference.at(15) == pytest.approx([4.0, 0.0])
    assert reference.at(99) == pytest.approx([4.0, 0.0])


def test_coherences_are_interpolated_between_points_and_constant_beyond_them() -> None:
    profile = dataclasses.replace(
        profile_of(["a"], [[1.0], [1.0]], steps=[0, 10]),
        coherences=np.array([[0.0], [0.5]], np.float32),
    )
    reference = Reference(profile)
    read = [reference.coherences_at(step) for step in (0, 5, 10, 99)]
    assert [float(c[0]) for c in read if c is not None] == pytest.approx([0.0, 0.25, 0.5, 0.5])
    assert Reference(profile_of(["a"], [[1.0]])).coherences_at(0) is None


@given(
    st.lists(st.floats(2.0**-60, 2.0**60, width=32), min_size=2, max_size=8),
    st.floats(-1, 10),
)
def test_the_rate_lies_between_the_neighboring_points(rates: list[float], step: float) -> None:
    reference = Reference(profile_of(["a"], [[rate] for rate in rates]))
    left = int(np.clip(np.floor(step), 0, len(rates) - 1))
    right = int(np.clip(np.ceil(step), 0, len(rates) - 1))
    low, high = sorted((rates[left], rates[right]))
    assert low * (1 - 1e-9) <= float(reference.at(step)[0]) <= high * (1 + 1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"unit_rates": np.array([[1.0], [np.nan]], np.float32)},
            r"points\[1\]\.unit_rates\[0\]: ",
        ),
        (
            {"unit_rates": np.array([[-1.0], [1]], np.float32)},
            r"-1\.0 of group 'a' is not a number in",
        ),
        ({"relative_errors": np.array([[np.inf], [1]], np.float32)}, r"relative_errors\[0\]: inf"),
        ({"steps": np.array([5, 5])}, r"points\[1\]\.step: 5 is not above 5"),
        ({"steps": np.array([-1, 5])}, r"points\[0\]\.step: -1 is not in \[0, "),
        ({"steps": np.array([2**63 - 1, 5])}, r"points\[0\]\.step: 9223372036854775807 is not in"),
        (
            {"unit_rates": np.array([[1.0], [1e31]], np.float32)},
            r"is not a number in \[0, 1e\+30\]",
        ),
        ({"total_steps": 2**60}, r"or above 9007199254740993"),
        ({"steps": np.array([], np.int64)}, r"points: 0 points"),
        ({"coherences": np.array([[0.0], [2.0]])}, r"points\[1\]\.coherences\[0\]: 2\.0 is not"),
        ({"learning_rates": np.array([0.1, -1.0])}, r"points\[1\]\.learning_rate: -1\.0 is not"),
        (
            {"policy": Policy(depth_rule=DepthRule.MEASURED)},
            r"policy\.depth_rule: measured needs the coherences",
        ),
        ({"base_learning_rate": 0.0}, r"base_learning_rate: 0\.0 is not a finite number above 0"),
        ({"base_learning_rate": np.nan}, r"base_learning_rate: nan"),
        ({"total_steps": 1}, r"total_steps: 1 is not above the last point's step 1"),
    ],
)
def test_the_error_for_an_invalid_profile_names_the_field(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        dataclasses.replace(profile_of(["a"], [[1.0], [2.0]]), **change)  # type: ignore[arg-type]

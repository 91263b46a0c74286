from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.document.scales import exact_scale, format_tick, linear_scale, log_scale, value_scale

FINITE = st.floats(-1e9, 1e9)


@given(st.lists(FINITE, max_size=20))
def test_a_linear_scale_spans_its_values_with_few_labels(values: list[float]) -> None:
    scale = linear_scale(values, 0, 100)
    tiny = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - tiny <= value <= scale.high + tiny for value in values)
    assert 2 <= len(scale.values) <= 10
    assert scale.at(scale.low) == 0
    assert scale.at(scale.high) == 100


@given(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=20))
def test_a_logarithmic_scale_spans_its_values_with_few_labels(values: list[float]) -> None:
    scale = log_scale(values, 100, 0)
    assert all(scale.low / 1.001 <= value <= scale.high * 1.001 for value in values)
    assert 1 <= len(scale.values) <= 8
    middle = math.sqrt(scale.low * scale.high)
    assert scale.at(middle) == pytest.approx(50, abs=0.01)


@given(st.lists(st.integers(0, 10**12), max_size=20))
def test_a_scale_of_steps_has_labels_at_whole_steps(steps: list[int]) -> None:
    scale = exact_scale(steps, 0, 100)
    assert all(value == int(value) for value in scale.values)
    assert all(scale.low <= value <= scale.high for value in scale.values)
    assert len(scale.values) <= 8


def test_values_that_differ_much_are_shown_on_a_logarithmic_scale() -> None:
    assert value_scale([0.1, 2.0], 0, 1).is_log
    assert not value_scale([0.5, 2.0], 0, 1).is_log
    assert value_scale([0.5, 2.0], 0, 1).low == 0
    assert not value_scale([0.0], 0, 1).is_log


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.05, "0.05"), (1_500, "1,500"), (2e-6, "2e-06"), (500, "500"), (1e12, "1e+12")],
)
def test_labels_are_short(value: float, words: str) -> None:
    assert format_tick(value) == words

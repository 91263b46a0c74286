from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import InvalidValueError
from advisor.policy.ranges import COUNT, FINITE, NON_NEGATIVE, POSITIVE, STEP, Range

_RANGES = [COUNT, FINITE, NON_NEGATIVE, POSITIVE, STEP, Range("is not in [0, 1]", low=0, high=1)]


@pytest.mark.parametrize("numbers", _RANGES)
@given(st.lists(st.floats() | st.sampled_from([0.0, -0.0, 1.0, 2.0**53]), min_size=1))
def test_arrays_and_single_numbers_are_validated_alike(numbers: Range, values: list[float]) -> None:
    array = np.array(values)
    inside = [numbers.contains(value) for value in values]
    assert numbers.contains_each(array).tolist() == inside
    if all(inside):
        numbers.check_each("field", array)
    else:
        first = inside.index(False)
        with pytest.raises(
            InvalidValueError, match=rf"field\[{first}\]: .* {numbers.complaint[:6]}"
        ):
            numbers.check_each("field", array)


@pytest.mark.parametrize(
    ("numbers", "inside", "outside"),
    [
        (FINITE, [-1e308, 0], [math.inf, -math.inf, math.nan]),
        (NON_NEGATIVE, [0, 1e308], [-5e-324, math.inf, math.nan]),
        (POSITIVE, [5e-324], [0, -1, math.inf, math.nan]),
        (COUNT, [0, 2**62], [-1]),
        (STEP, [0, 2**53], [-1, 2**53 + 1]),
    ],
)
def test_values_at_the_limits_of_each_range(
    numbers: Range, inside: list[float], outside: list[float]
) -> None:
    for value in inside:
        numbers.check("field", value)
    for value in outside:
        with pytest.raises(InvalidValueError, match=r"field: .* is "):
            numbers.check("field", value)

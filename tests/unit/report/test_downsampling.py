from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.report.downsampling import kept_points

NUMBERS = st.one_of(st.just(float("nan")), st.floats(-10, 10))


@given(
    data=st.lists(st.tuples(st.integers(0, 500), NUMBERS, NUMBERS), min_size=1, max_size=300),
    buckets=st.integers(1, 12),
)
def test_the_ends_and_the_extremes_of_each_bucket_are_kept(
    data: list[tuple[int, float, float]], buckets: int
) -> None:
    data.sort(key=lambda point: point[0])
    steps = [step for step, *_ in data]
    series = [[point[1] for point in data], [point[2] for point in data]]
    kept = kept_points(steps, series, buckets)
    assert kept[0] == 0
    assert kept[-1] == len(data) - 1
    assert list(kept) == sorted(set(kept))
    assert len(kept) <= 2 * buckets * len(series) + 2
    width = (steps[-1] - steps[0]) / buckets or 1
    bucket = [min(int((step - steps[0]) / width), buckets - 1) for step in steps]
    for values in series:
        for each in set(bucket):
            own = {i for i, b in enumerate(bucket) if b == each and not np.isnan(values[i])}
            if own:
                found = {values[i] for i in own & set(kept.tolist())}
                assert {min(values[i] for i in own), max(values[i] for i in own)} <= found


def test_a_training_that_went_back_keeps_the_extremes_of_both_parts() -> None:
    steps = [*range(100), *range(50, 100)]
    values = [0.0] * 150
    values[60], values[110] = 5.0, -5.0  # both at step 60
    assert {60, 110} <= set(kept_points(steps, [values], 4).tolist())


def test_all_points_are_kept_if_they_are_few_and_one_point_is_enough() -> None:
    assert kept_points([7], [[1.0]], 1).tolist() == [0]
    assert kept_points([], [[]], 3).tolist() == []
    assert kept_points([5] * 40, [[1.0] * 40], 3).tolist() == [0, 39]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="buckets is 0; it must be at least 1"):
        kept_points([1], [[1.0]], 0)
    with pytest.raises(ValueError, match="a series has 2 values, but there are 1 steps"):
        kept_points([1], [[1.0, 2.0]], 1)

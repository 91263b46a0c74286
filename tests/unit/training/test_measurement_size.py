"""How many examples and probes are used: what options, the budget and the advisor say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fslr.training.measurement_size import MeasurementSize


def test_the_smaller_limit_of_examples_holds() -> None:
    size = MeasurementSize(1, max_examples=16)
    found = []
    for examples in (8, 32, 0):
        size.set_examples(examples)
        found.append(size.part(64))
    assert found == [(8, 1), (16, 1), (16, 1)]
    unlimited = MeasurementSize(1)
    assert unlimited.part(64) == (None, 1)
    unlimited.set_examples(8)
    assert unlimited.part(64) == (8, 1)


@pytest.mark.parametrize(
    ("examples", "part"),
    [(64, (16, 4)), (256, (64, 4)), (30, (10, 3)), (17, (8, 2)), (15, (None, 1)), (0, (None, 1))],
)
def test_repeats_make_as_many_projections_as_all_examples(
    examples: int, part: tuple[int | None, int]
) -> None:
    size = MeasurementSize(1)
    size.set_examples(0, repeats=4)
    assert size.part(examples) == part


@given(
    examples=st.integers(0, 300),
    option=st.none() | st.integers(1, 300),
    planned=st.integers(0, 300),
    repeats=st.integers(1, 4),
)
def test_repeats_never_make_more_projections_than_there_are_examples(
    examples: int, option: int | None, planned: int, repeats: int
) -> None:
    size = MeasurementSize(1, option)
    size.set_examples(planned, repeats)
    most, factor = size.part(examples)
    assert 1 <= factor <= repeats
    if most is not None:
        assert 1 <= most <= min(option or most, planned or most)
        assert factor == 1 or most * factor <= examples
    else:
        assert factor == 1


def test_the_advisor_sets_the_number_of_probes_without_repeats() -> None:
    size = MeasurementSize(3)
    size.set_examples(8, repeats=4)
    assert (size.probes, size.part(64)) == (3, (8, 4))
    size.set_probes(5)
    assert (size.probes, size.part(64)) == (5, (8, 1))


def test_probes_that_a_slow_route_adds_count_in_what_the_advisor_asks_for() -> None:
    size = MeasurementSize(2)
    size.used(16, 32, 4)  # 16 probes for each requested one, of which 4 are repeats
    size.set_probes(10)
    assert size.probes == 3
    size.used(16, 3, 1, least_per_requested=5)  # all further ones take the slow route
    size.set_probes(10)
    assert size.probes == 2


def test_a_state_continues_with_the_same_probes_and_without_a_plan() -> None:
    size = MeasurementSize(3)
    size.set_examples(8, repeats=4)
    size.used(8, 24, 4)
    state = size.state_dict()
    assert state == {"probe_count": 3, "probes_per_requested": 2.0}
    resumed = MeasurementSize(1)
    resumed.load_state_dict({**state, "average": {}})
    assert (resumed.probes, resumed.part(64)) == (3, (None, 1))
    resumed.set_probes(7)
    assert resumed.probes == 4
    with pytest.raises(KeyError, match="probes_per_requested"):
        resumed.load_state_dict({"probe_count": 1})

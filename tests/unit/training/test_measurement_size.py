"""How many examples and probes are used: what options, the budget and the advisor say."""

from __future__ import annotations

import pytest

from fslr.training.measurement_size import MeasurementSize


def test_the_smaller_limit_of_examples_holds() -> None:
    size = MeasurementSize(1, max_examples=16)
    found = []
    for examples in (8, 32, 0):
        size.set_examples(examples)
        found.append(size.max_examples)
    assert found == [8, 16, 16]
    unlimited = MeasurementSize(1)
    assert unlimited.max_examples is None
    unlimited.set_examples(8)
    assert unlimited.max_examples == 8


def test_repeats_multiply_the_probes_until_the_advisor_sets_their_number() -> None:
    size = MeasurementSize(3)
    size.set_examples(8, repeats=4)
    assert size.probes == 12
    size.set_examples(16, repeats=2)
    assert size.probes == 6
    size.set_probes(5)
    assert size.probes == 5
    size.set_examples(8, repeats=2)
    assert size.probes == 10


def test_probes_that_a_slow_route_adds_count_in_what_the_advisor_asks_for() -> None:
    size = MeasurementSize(2)
    size.note_probes(8)  # four for each requested one
    size.set_probes(10)
    assert size.probes == 3
    size.note_probes(3, least_per_requested=5)  # all further ones take the slow route
    size.set_probes(10)
    assert size.probes == 2


def test_a_state_continues_with_the_same_probes_and_without_a_limit_of_examples() -> None:
    size = MeasurementSize(3)
    size.set_examples(8, repeats=4)
    size.note_probes(24)
    state = size.state_dict()
    assert state == {"probe_count": 12, "probes_per_requested": 2.0, "repeats": 4}
    resumed = MeasurementSize(1)
    resumed.load_state_dict({**state, "average": {}})
    assert (resumed.probes, resumed.max_examples) == (12, None)
    resumed.set_examples(8)
    resumed.set_probes(7)
    assert resumed.probes == 4
    with pytest.raises(KeyError, match="repeats"):
        resumed.load_state_dict({"probe_count": 1})

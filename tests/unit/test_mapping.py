from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import (
    DepthRule,
    Group,
    Layout,
    LayoutMismatchError,
    UnmatchedRule,
    map_layout,
    refusal,
)
from advisor.policy.mapping import overlaps

COUNTS = st.integers(1, 40)


def stack(depth: int) -> Layout:
    return Layout.of_names([f"blocks.{i}.w" for i in range(depth)])


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_overlaps_are_the_exact_lengths_of_the_common_stretches(
    count: int, base_count: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, count - 1))
    expected = {}
    for i in range(base_count):
        start = max(Fraction(index, count), Fraction(i, base_count))
        stop = min(Fraction(index + 1, count), Fraction(i + 1, base_count))
        if stop > start:
            expected[i] = float(stop - start)
    assert dict(overlaps(index, count, base_count)) == pytest.approx(expected)
    assert [i for i, _ in overlaps(index, count, base_count)] == list(expected)


@given(COUNTS, COUNTS, st.data())
def test_sum_preserves_the_sum_over_a_role_at_any_depth(
    base_depth: int, depth: int, data: st.DataObject
) -> None:
    rates = np.array(
        data.draw(st.lists(st.floats(1e-6, 1e6), min_size=base_depth, max_size=base_depth))
    )
    mapping = map_layout(stack(depth), stack(base_depth), DepthRule.SUM)
    assert mapping.references(rates).sum() == pytest.approx(rates.sum(), rel=1e-12)


@given(COUNTS, COUNTS, st.data())
def test_sqrt_preserves_the_sum_of_squares(
    base_depth: int, depth: int, data: st.DataObject
) -> None:
    rates = np.array(
        data.draw(st.lists(st.floats(1e-6, 1e6), min_size=base_depth, max_size=base_depth))
    )
    mapping = map_layout(stack(depth), stack(base_depth), DepthRule.SQRT)
    squares = np.square(mapping.references(rates)).sum()
    assert squares == pytest.approx(np.square(rates).sum(), rel=1e-9)


@given(COUNTS, COUNTS)
def test_copy_keeps_a_uniform_rate(base_depth: int, depth: int) -> None:
    mapping = map_layout(stack(depth), stack(base_depth), DepthRule.COPY)
    assert mapping.references(np.full(base_depth, 3.0)) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (DepthRule.SUM, [0.5, 0.5, 1.0, 1.0]),
        (DepthRule.SQRT, [2**-0.5, 2**-0.5, 2**0.5, 2**0.5]),
        (DepthRule.COPY, [1.0, 1.0, 2.0, 2.0]),
    ],
)
def test_two_blocks_stand_for_four(rule: DepthRule, expected: list[float]) -> None:
    mapping = map_layout(stack(4), stack(2), rule)
    assert mapping.references(np.array([1.0, 2.0])) == pytest.approx(expected)


def test_a_name_at_the_same_place_wins_and_others_go_by_the_role() -> None:
    base = Layout.of_names(["blocks.0.w", "blocks.2.w"])
    run = Layout.of_names(["blocks.2.w", "blocks.4.w"])
    mapping = map_layout(run, base, DepthRule.SUM)
    assert mapping.references(np.array([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert map_layout(base, base, DepthRule.SUM).sources_of(1) == [1]


def test_a_name_of_another_depth_goes_by_the_role() -> None:
    mapping = map_layout(stack(4), stack(2), DepthRule.SUM)
    assert mapping.sources_of(1) == [0]  # blocks.1 of 4 lies in blocks.0 of 2, not in blocks.1


@pytest.mark.parametrize("rule", list(UnmatchedRule))
def test_a_layout_that_maps_to_nothing_is_refused_under_every_rule(rule: UnmatchedRule) -> None:
    layout = Layout.of_names(["x", "y"])
    refused = refusal(layout, map_layout(layout, stack(2), DepthRule.SUM), rule)
    assert isinstance(refused, LayoutMismatchError)
    assert "2 of 2 groups have no counterpart in the profile: x, y." in str(refused)


def test_unmatched_groups_are_an_error_or_held_as_the_rule_says() -> None:
    layout = Layout.of_names(["blocks.0.w", "extra"])
    mapping = map_layout(layout, stack(2), DepthRule.SUM)
    assert mapping.matched.tolist() == [True, False]
    assert mapping.references(np.array([1.0, 2.0])).tolist() == [3.0, 0.0]
    assert refusal(layout, mapping, UnmatchedRule.HOLD) is None
    refused = refusal(layout, mapping, UnmatchedRule.ERROR)
    assert refused is not None
    assert refused.unmatched == ("extra",)
    whole = map_layout(stack(3), stack(2), DepthRule.SUM)
    assert refusal(stack(3), whole, UnmatchedRule.ERROR) is None


def test_a_stretch_that_the_base_does_not_cover_is_unmatched() -> None:
    base = Layout.of([Group("a", "r", 0, 2)])  # position 1 of 2 is missing
    run = Layout.of([Group("x", "r", 0, 1)])
    assert not map_layout(run, base, DepthRule.SUM).matched.any()


def test_the_largest_layouts_map_in_no_time() -> None:
    """The number of entries is bounded by the sum of the depths, not by their product."""
    mapping = map_layout(stack(19_999), stack(20_000), DepthRule.SUM)
    assert len(mapping.targets) <= 40_000

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.policy import (
    DepthRule,
    Group,
    GroupAlias,
    Layout,
    LayoutMismatchError,
    Match,
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
    met = overlaps(index, count, base_count)
    assert [i for i, _, _ in met] == list(expected)
    lengths = list(expected.values())
    assert [share / base_count for _, share, _ in met] == pytest.approx(lengths)
    assert [span / count for _, _, span in met] == pytest.approx(lengths)


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


def resnet(*blocks: int) -> Layout:
    return Layout.of_names([
        f"layer{stage}.{block}.conv1.weight"
        for stage, count in enumerate(blocks, 1)
        for block in range(count)
    ])


def test_the_blocks_of_a_stage_stand_for_the_blocks_of_the_same_stage() -> None:
    mapping = map_layout(resnet(4, 3), resnet(2, 2), DepthRule.SUM)
    references = mapping.references(np.array([1.0, 2.0, 3.0, 4.0]))
    thirds = [3 * 2 / 3, 3 / 3 + 4 / 3, 4 * 2 / 3]
    assert references == pytest.approx([0.5, 0.5, 1.0, 1.0, *thirds])


def test_each_expert_stands_for_itself_in_a_deeper_model() -> None:
    def moe(layers: int) -> Layout:
        return Layout.of_names([f"layers.{i}.experts.{e}.w" for i in range(layers) for e in (0, 1)])

    references = map_layout(moe(2), moe(1), DepthRule.SUM).references(np.array([1.0, 6.0]))
    assert references == pytest.approx([0.5, 3.0, 0.5, 3.0])


COUNT_LISTS = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(COUNT_LISTS, COUNT_LISTS, st.data())
def test_sum_preserves_the_sum_over_ragged_stages(
    blocks: list[int], base_blocks: list[int], data: st.DataObject
) -> None:
    size = sum(base_blocks)
    rates = np.array(data.draw(st.lists(st.floats(1e-6, 1e6), min_size=size, max_size=size)))
    mapping = map_layout(resnet(*blocks), resnet(*base_blocks), DepthRule.SUM)
    assert mapping.references(rates).sum() == pytest.approx(rates.sum(), rel=1e-9)


@given(COUNTS, COUNTS, st.floats(0, 1), st.data())
def test_measured_preserves_the_size_of_the_whole_change(
    base_depth: int, depth: int, coherence: float, data: st.DataObject
) -> None:
    rates = np.array(
        data.draw(st.lists(st.floats(1e-3, 1e3), min_size=base_depth, max_size=base_depth))
    )

    def size(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        correlations = np.full((len(values),) * 2, coherence) + (1 - coherence) * np.eye(
            len(values)
        )
        return float(np.sqrt(values @ correlations @ values))

    mapping = map_layout(stack(depth), stack(base_depth), DepthRule.MEASURED)
    references = mapping.references(rates, np.array([coherence]))
    assert size(references) == pytest.approx(size(rates), rel=1e-9)


@given(st.integers(1, 8), st.integers(1, 5))
def test_measured_is_sum_at_coherence_one_and_sqrt_at_zero(base_depth: int, times: int) -> None:
    rates = np.linspace(1, 2, base_depth)
    run, base = stack(base_depth * times), stack(base_depth)
    for coherence, rule in ((1.0, DepthRule.SUM), (0.0, DepthRule.SQRT), (-0.3, DepthRule.SQRT)):
        measured = map_layout(run, base, DepthRule.MEASURED)
        expected = map_layout(run, base, rule).references(rates)
        assert measured.references(rates, np.array([coherence])) == pytest.approx(expected)


def test_wrapped_names_map_as_plain_ones_do() -> None:
    names = ["embed.w", "blocks.0.w", "blocks.1.w"]
    base = Layout.of_names(names)
    for prefix in ("_orig_mod.", "module.", "base_model.model."):
        for run, profile in (
            (Layout.of_names([prefix + name for name in names]), base),
            (base, Layout.of_names([prefix + name for name in names])),
        ):
            mapping = map_layout(run, profile, DepthRule.SUM)
            assert mapping.matches == (Match.NAME,) * 3
            assert mapping.references(np.array([1.0, 2.0, 3.0])).tolist() == [1.0, 2.0, 3.0]


def test_the_alias_table_finds_another_framework_s_groups() -> None:
    base = Layout.of_names(["0.weight", "0.bias", "2.weight", "2.bias", "blocks.0.w"])
    run = Layout.of_names([
        *("Dense_0/kernel", "Dense_0/bias", "Dense_1/kernel", "Dense_1/bias"),
        *("Block_0/kernel", "Block_1/kernel"),
    ])
    aliases = [
        GroupAlias("Dense_0/kernel", "0.weight"),
        GroupAlias("Dense_1/kernel", "2.weight"),
        GroupAlias("Dense_*/bias", "*.bias"),
        GroupAlias("Block_*/kernel", "blocks.*.w"),
    ]
    mapping = map_layout(run, base, DepthRule.SUM, aliases=aliases)
    assert set(mapping.matches) == {Match.ALIAS}
    rates = np.array([1.0, 2.0, 3.0, 4.0, 6.0])
    assert mapping.references(rates).tolist() == [1.0, 2.0, 3.0, 4.0, 3.0, 3.0]


def test_an_alias_also_rewrites_a_given_role() -> None:
    run = Layout.of([Group("x", "Block_*/kernel", 0, 2), Group("y", "Block_*/kernel", 1, 2)])
    aliases = [GroupAlias("Block_*/kernel", "blocks.*.w")]
    mapping = map_layout(run, stack(2), DepthRule.SUM, aliases=aliases)
    assert mapping.references(np.array([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_aliases_that_make_two_groups_one_match_none() -> None:
    run = Layout.of_names(["a", "b", "c"])
    aliases = [GroupAlias("a", "w"), GroupAlias("b", "w")]
    mapping = map_layout(run, Layout.of_names(["w", "c"]), DepthRule.SUM, aliases=aliases)
    assert mapping.matches == (Match.NONE, Match.NONE, Match.NAME)


def test_the_nearest_role_stands_in_where_the_policy_says_so() -> None:
    base = Layout.of_names(["blocks.0.attn.qkv.w", "blocks.0.mlp.w"])
    run = Layout.of_names(["blocks.0.attn.q.w", "blocks.1.attn.q.w", "other"])
    mapping = map_layout(run, base, DepthRule.SUM, unmatched_rule=UnmatchedRule.NEAREST_ROLE)
    assert mapping.matches == (Match.NEAREST_ROLE, Match.NEAREST_ROLE, Match.NONE)
    assert mapping.references(np.array([4.0, 1.0])).tolist() == [2.0, 2.0, 0.0]
    assert refusal(run, mapping, UnmatchedRule.NEAREST_ROLE) is None
    held = map_layout(run, base, DepthRule.SUM, unmatched_rule=UnmatchedRule.HOLD)
    assert set(held.matches) == {Match.NONE}


def test_the_templates_of_a_profile_read_the_names_of_its_runs() -> None:
    base = Layout.of([Group("s0.u0.w"), Group("s0.u1.w")], ["s*.u*"])
    run = Layout.of_names(["s0.u0.w", "s0.u1.w", "s0.u2.w", "s0.u3.w"])
    mapping = map_layout(run, base, DepthRule.SUM)
    assert mapping.references(np.array([1.0, 2.0])).tolist() == [0.5, 0.5, 1.0, 1.0]


def test_roles_of_other_numbers_of_indices_do_not_match() -> None:
    one = Layout.of([Group("a", "r", 0, 1)])
    two = Layout.of([Group("b", "r", 0, 1, 0, (0,), (1,))])
    assert not map_layout(one, two, DepthRule.SUM).matched.any()
    assert not map_layout(two, one, DepthRule.SUM).matched.any()

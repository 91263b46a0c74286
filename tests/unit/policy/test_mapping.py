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
from advisor.policy.depth_overlap import overlaps

COUNTS = st.integers(1, 40)


def stack(depth: int) -> Layout:
    return Layout.of_names([f"blocks.{i}.w" for i in range(depth)])


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_overlaps_are_exact_interval_lengths(
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
def test_the_sum_rule_preserves_the_sum_over_a_role_at_any_depth(
    base_depth: int, depth: int, data: st.DataObject
) -> None:
    rates = np.array(
        data.draw(st.lists(st.floats(1e-6, 1e6), min_size=base_depth, max_size=base_depth))
    )
    mapping = map_layout(stack(depth), stack(base_depth), DepthRule.SUM)
    assert mapping.references(rates).sum() == pytest.approx(rates.sum(), rel=1e-12)


@given(COUNTS, COUNTS, st.data())
def test_the_sqrt_rule_preserves_the_sum_of_squares(
    base_depth: int, depth: int, data: st.DataObject
) -> None:
    rates = np.array(
        data.draw(st.lists(st.floats(1e-6, 1e6), min_size=base_depth, max_size=base_depth))
    )
    mapping = map_layout(stack(depth), stack(base_depth), DepthRule.SQRT)
    squares = np.square(mapping.references(rates)).sum()
    assert squares == pytest.approx(np.square(rates).sum(), rel=1e-9)


@given(COUNTS, COUNTS)
def test_the_copy_rule_keeps_a_uniform_rate(base_depth: int, depth: int) -> None:
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
def test_two_base_blocks_correspond_to_four(rule: DepthRule, expected: list[float]) -> None:
    mapping = map_layout(stack(4), stack(2), rule)
    assert mapping.references(np.array([1.0, 2.0])) == pytest.approx(expected)


def test_a_name_matches_only_at_the_same_position_and_otherwise_by_role() -> None:
    base = Layout.of_names(["blocks.0.w", "blocks.2.w"])
    run = Layout.of_names(["blocks.2.w", "blocks.4.w"])
    mapping = map_layout(run, base, DepthRule.SUM)
    assert mapping.references(np.array([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert map_layout(base, base, DepthRule.SUM).sources_of(1) == [1]


def test_a_name_in_a_model_of_different_depth_matches_by_role() -> None:
    mapping = map_layout(stack(4), stack(2), DepthRule.SUM)
    assert mapping.sources_of(1) == [0]  # blocks.1 of 4 overlaps blocks.0 of 2, not blocks.1


@pytest.mark.parametrize("rule", list(UnmatchedRule))
def test_a_layout_without_any_match_is_refused_under_every_rule(rule: UnmatchedRule) -> None:
    layout = Layout.of_names(["x", "y"])
    refused = refusal(layout, map_layout(layout, stack(2), DepthRule.SUM), rule)
    assert isinstance(refused, LayoutMismatchError)
    assert "2 of 2 groups have no counterpart in the profile: x, y." in str(refused)
    assert "hold" not in str(refused)  # holding would not help


def test_unmatched_groups_are_an_error_or_held_depending_on_the_rule() -> None:
    layout = Layout.of_names(["blocks.0.w", "extra"])
    mapping = map_layout(layout, stack(2), DepthRule.SUM)
    assert mapping.matched.tolist() == [True, False]
    assert mapping.references(np.array([1.0, 2.0])).tolist() == [3.0, 0.0]
    assert refusal(layout, mapping, UnmatchedRule.HOLD) is None
    refused = refusal(layout, mapping, UnmatchedRule.ERROR)
    assert refused is not None
    assert refused.unmatched == ("extra",)
    assert "or set the policy's unmatched rule to hold" in str(refused)
    whole = map_layout(stack(3), stack(2), DepthRule.SUM)
    assert refusal(stack(3), whole, UnmatchedRule.ERROR) is None


def test_a_group_is_unmatched_if_the_base_lacks_one_of_its_blocks() -> None:
    base = Layout.of([Group("a", "r", 0, 2)])  # position 1 of 2 is missing
    run = Layout.of([Group("x", "r", 0, 1)])
    assert not map_layout(run, base, DepthRule.SUM).matched.any()


def test_the_largest_layouts_map_to_a_bounded_number_of_entries() -> None:
    """The number of entries is bounded by the sum of the depths, not by their product."""
    mapping = map_layout(stack(19_999), stack(20_000), DepthRule.SUM)
    assert len(mapping.targets) <= 40_000


def resnet(*blocks: int) -> Layout:
    return Layout.of_names([
        f"layer{stage}.{block}.conv1.weight"
        for stage, count in enumerate(blocks, 1)
        for block in range(count)
    ])


def test_the_blocks_of_a_stage_correspond_to_blocks_of_the_same_stage() -> None:
    mapping = map_layout(resnet(4, 3), resnet(2, 2), DepthRule.SUM)
    references = mapping.references(np.array([1.0, 2.0, 3.0, 4.0]))
    thirds = [3 * 2 / 3, 3 / 3 + 4 / 3, 4 * 2 / 3]
    assert references == pytest.approx([0.5, 0.5, 1.0, 1.0, *thirds])


def test_each_expert_corresponds_to_itself_in_a_deeper_model() -> None:
    def moe(layers: int) -> Layout:
        return Layout.of_names([f"layers.{i}.experts.{e}.w" for i in range(layers) for e in (0, 1)])

    references = map_layout(moe(2), moe(1), DepthRule.SUM).references(np.array([1.0, 6.0]))
    assert references == pytest.approx([0.5, 3.0, 0.5, 3.0])


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4), st.data())
def test_the_sum_rule_preserves_the_sum_over_stages_of_unequal_length(
    stages: list[tuple[int, int]], data: st.DataObject
) -> None:
    blocks, base_blocks = zip(*stages, strict=True)
    size = sum(base_blocks)
    rates = np.array(data.draw(st.lists(st.floats(1e-6, 1e6), min_size=size, max_size=size)))
    mapping = map_layout(resnet(*blocks), resnet(*base_blocks), DepthRule.SUM)
    assert mapping.references(rates).sum() == pytest.approx(rates.sum(), rel=1e-9)


@given(COUNTS, COUNTS, st.floats(0, 1), st.data())
def test_the_measured_rule_preserves_the_size_of_the_total_change(
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
def test_the_measured_rule_equals_sum_at_coherence_one_and_sqrt_at_zero(
    base_depth: int, times: int
) -> None:
    rates = np.linspace(1, 2, base_depth)
    run, base = stack(base_depth * times), stack(base_depth)
    for coherence, rule in ((1.0, DepthRule.SUM), (0.0, DepthRule.SQRT), (-0.3, DepthRule.SQRT)):
        measured = map_layout(run, base, DepthRule.MEASURED)
        expected = map_layout(run, base, rule).references(rates)
        assert measured.references(rates, np.array([coherence])) == pytest.approx(expected)


def test_wrapped_names_map_like_plain_names() -> None:
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


def test_the_alias_table_matches_groups_of_a_different_framework() -> None:
    base = Layout.of_names(["0.weight", "0.bias", "2.weight", "2.bias", "blocks.0.w"])
    run = Layout.of_names([
        *("Dense_0/kernel", "Dense_0/bias", "Dense_1/kernel", "Dense_1/bias"),
        *("Block_0/kernel", "Block_1/kernel"),
    ])
    aliases = [
        GroupAlias("Dense_0/kernel", "0.weight"),
        GroupAlias("Dense_1/kernel", "2.weight"),
        GroupAlias("Dense_0/**", "0.**"),
        GroupAlias("Dense_1/**", "2.**"),
        GroupAlias("Block_*/kernel", "blocks.*.w"),
    ]
    mapping = map_layout(run, base, DepthRule.SUM, aliases=aliases)
    assert set(mapping.matches) == {Match.ALIAS}
    rates = np.array([1.0, 2.0, 3.0, 4.0, 6.0])
    assert mapping.references(rates).tolist() == [1.0, 2.0, 3.0, 4.0, 3.0, 3.0]


def test_an_alias_also_rewrites_an_explicit_role() -> None:
    run = Layout.of([Group("x", "Block_*/kernel", 0, 2), Group("y", "Block_*/kernel", 1, 2)])
    aliases = [GroupAlias("Block_*/kernel", "blocks.*.w")]
    mapping = map_layout(run, stack(2), DepthRule.SUM, aliases=aliases)
    assert mapping.references(np.array([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_groups_that_get_the_same_name_from_aliases_are_unmatched_and_others_unaffected() -> None:
    run = Layout.of_names(["a", "b", "c", "d"])
    aliases = [GroupAlias("a", "w"), GroupAlias("b", "w"), GroupAlias("d", "v")]
    mapping = map_layout(run, Layout.of_names(["w", "c", "v"]), DepthRule.SUM, aliases=aliases)
    assert mapping.matches == (Match.NONE, Match.NONE, Match.NAME, Match.ALIAS)


def test_explicit_roles_that_an_alias_merges_are_marked_and_not_refused() -> None:
    run = Layout.of([Group("x", "p", 0, 1), Group("y", "q", 0, 1)])
    aliases = [GroupAlias("p", "r"), GroupAlias("q", "r")]
    mapping = map_layout(run, Layout.of([Group("z", "r", 0, 1)]), DepthRule.SUM, aliases=aliases)
    assert mapping.matches == (Match.NONE, Match.NONE)


def test_aliased_blocks_count_together_with_blocks_that_need_no_alias() -> None:
    run = Layout.of_names(["blocks.0.a.w", "layer_1/k"])
    base = Layout.of_names(["blocks.0.a.w", "blocks.1.a.w"])
    aliases = [GroupAlias("layer_*/k", "blocks.*.a.w")]
    mapping = map_layout(run, base, DepthRule.SUM, aliases=aliases)
    assert mapping.references(np.array([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert mapping.matches == (Match.NAME, Match.ALIAS)


GPT = ["wte.weight", *(f"h.{i}.{part}.w" for i in range(12) for part in ("attn", "mlp"))]


def test_frozen_blocks_do_not_change_the_positions_of_other_blocks() -> None:
    base = Layout.of_names(GPT)
    rates = np.arange(1.0, len(GPT) + 1)
    trained = [name for name in GPT if name.startswith(("h.10.", "h.11."))]
    run = Layout.of(map(Group, trained), frozen_names=[n for n in GPT if n not in trained])
    mapping = map_layout(run, base, DepthRule.SUM)
    assert set(mapping.matches) == {Match.NAME}
    assert mapping.references(rates).tolist() == rates[-4:].tolist()
    # In a deeper model, the last two of 24 blocks share the last one of 12.
    deep = [f"h.{i}.{part}.w" for i in range(24) for part in ("attn", "mlp")]
    run = Layout.of(map(Group, deep[-4:]), frozen_names=deep[:-4])
    mapping = map_layout(run, base, DepthRule.SUM)
    assert mapping.references(rates) == pytest.approx([rates[-2] / 2, rates[-1] / 2] * 2)
    # A profile of only the last blocks has no counterparts of the first ones.
    mapping = map_layout(Layout.of_names(GPT), Layout.of(run.groups, (), deep[:-4]), DepthRule.SUM)
    assert [GPT[i] for i in np.flatnonzero(mapping.matched)] == trained[-2:]


def test_a_part_that_occurs_once_per_stage_is_not_scaled_by_depth() -> None:
    def net(*blocks: int, down: tuple[int, ...]) -> Layout:
        names = [f"layer{s}.{b}.conv.w" for s, n in enumerate(blocks, 1) for b in range(n)]
        return Layout.of_names(names + [f"layer{s}.0.downsample.0.weight" for s in down])

    run, base = net(3, 4, down=(1, 2)), net(2, 2, down=(2,))
    mapping = map_layout(run, base, DepthRule.SUM)
    references = dict(
        zip((g.name for g in run.groups), mapping.references(np.ones(5)), strict=True)
    )
    assert references["layer2.0.downsample.0.weight"] == 1.0
    assert references["layer2.3.conv.w"] == 0.5
    assert references["layer1.0.downsample.0.weight"] == 0.0  # the base has none in this stage
    assert not mapping.matched[[g.name.startswith("layer1.0.down") for g in run.groups]].any()


def test_only_one_index_is_matched_by_overlap_and_stages_never_are() -> None:
    def net(stages: int, blocks: int, word: str) -> Layout:
        return Layout.of_names([
            f"{word}.{s}.layers.{b}.conv.w" for s in range(stages) for b in range(blocks)
        ])

    assert map_layout(net(2, 6, "parts"), net(2, 3, "parts"), DepthRule.SUM).matched.all()
    # Parts that contain several blocks are stages, whatever their name.
    assert not map_layout(net(4, 3, "parts"), net(2, 3, "parts"), DepthRule.SUM).matched.any()
    assert map_layout(net(4, 1, "parts"), net(2, 1, "parts"), DepthRule.SUM).matched.all()
    assert not map_layout(net(4, 6, "parts"), net(2, 3, "parts"), DepthRule.SUM).matched.any()
    assert not map_layout(net(4, 3, "stages"), net(2, 3, "stages"), DepthRule.SUM).matched.any()
    assert map_layout(net(2, 6, "stages"), net(2, 3, "stages"), DepthRule.SUM).matched.all()


@pytest.mark.parametrize("rule", [DepthRule.SUM, DepthRule.SQRT, DepthRule.COPY])
def test_more_experts_have_orthogonal_changes_under_every_rule(rule: DepthRule) -> None:
    def moe(experts: int) -> Layout:
        return Layout.of_names([f"layers.0.experts.{e}.w" for e in range(experts)])

    references = map_layout(moe(4), moe(2), rule).references(np.array([1.0, 3.0]))
    assert references == pytest.approx(np.array([1.0, 1.0, 3.0, 3.0]) / np.sqrt(2))


def test_templates_of_either_layout_apply_to_both() -> None:
    names = [f"features.{i}.weight" for i in range(3)]
    run, base = Layout.of(map(Group, names), ["features.*"]), Layout.of_names(names)
    for one, other in ((run, base), (base, run)):
        assert set(map_layout(one, other, DepthRule.SUM).matches) == {Match.NAME}


def test_wrapped_and_plain_copies_of_a_block_are_not_mixed_up() -> None:
    names = ["blocks.0.a.w", "blocks.1.a.w", "module.blocks.0.a.w", "module.blocks.1.a.w"]
    base = Layout.of_names(names)
    run = Layout.of_names(["blocks.0.a.w", "blocks.1.a.w", "blocks.2.a.w"])
    mapping = map_layout(run, base, DepthRule.SUM)
    assert mapping.references(np.array([1.0, 2.0, 10.0, 20.0])).sum() == pytest.approx(3.0)


def test_the_measured_rule_does_not_change_models_of_equal_depth() -> None:
    rho = np.array([0.5])
    base = Layout.of([Group(f"b{i}", "r", i, 4) for i in range(4)])
    one = map_layout(Layout.of([Group("x", "r", 2, 4)]), base, DepthRule.MEASURED)
    assert one.references(np.array([1.0, 2.0, 3.0, 4.0]), rho).tolist() == [3.0]
    base = Layout.of_names(["blocks.0.attn.qkv.w", "blocks.1.attn.qkv.w"])
    run = Layout.of_names([
        f"blocks.{i}.attn.{part}.w" for i in range(2) for part in ("q", "k", "v", "qkv")
    ])
    shared = map_layout(run, base, DepthRule.MEASURED, unmatched_rule=UnmatchedRule.NEAREST_ROLE)
    assert shared.references(np.array([1.0, 2.0]), rho).tolist() == [1.0] * 4 + [2.0] * 4
    stages = map_layout(resnet(2, 4), resnet(2, 2), DepthRule.MEASURED)
    references = stages.references(np.array([1.0, 2.0, 3.0, 4.0]), rho)
    assert references[:2].tolist() == [1.0, 2.0]  # of a stage of equal depth
    assert references[2] > 1.5  # more than under the sum rule


@given(st.permutations(range(12)), st.floats(0, 1))
def test_results_are_bit_identical_in_any_order_of_groups(order: list[int], rho: float) -> None:
    names = [f"blocks.{i}.{part}.w" for i in range(6) for part in "ab"]
    base = Layout.of_names([f"blocks.{i}.{part}.w" for i in range(4) for part in "ab"])
    rates = np.array([0.1, 0.7, 1.3, 2.9, 0.3, 1.7, 11.0, 0.013])
    coherences = np.array([rho, 1 - rho])
    for rule in DepthRule:
        straight = map_layout(Layout.of_names(names), base, rule)
        shuffled = map_layout(Layout.of_names([names[i] for i in order]), base, rule)
        expected = straight.references(rates, coherences)[order]
        assert shuffled.references(rates, coherences).tolist() == expected.tolist()


def test_the_nearest_role_is_used_if_the_policy_allows_it() -> None:
    base = Layout.of_names(["blocks.0.attn.qkv.w", "blocks.0.mlp.w"])
    run = Layout.of_names(["blocks.0.attn.q.w", "blocks.1.attn.q.w", "other"])
    mapping = map_layout(run, base, DepthRule.SUM, unmatched_rule=UnmatchedRule.NEAREST_ROLE)
    assert mapping.matches == (Match.NEAREST_ROLE, Match.NEAREST_ROLE, Match.NONE)
    assert mapping.references(np.array([4.0, 1.0])).tolist() == [2.0, 2.0, 0.0]
    assert refusal(run, mapping, UnmatchedRule.NEAREST_ROLE) is None
    held = map_layout(run, base, DepthRule.SUM, unmatched_rule=UnmatchedRule.HOLD)
    assert set(held.matches) == {Match.NONE}


def test_the_templates_of_a_profile_apply_to_the_names_of_its_runs() -> None:
    base = Layout.of([Group("s0.u0.w"), Group("s0.u1.w")], ["s*.u*"])
    run = Layout.of_names(["s0.u0.w", "s0.u1.w", "s0.u2.w", "s0.u3.w"])
    mapping = map_layout(run, base, DepthRule.SUM)
    assert mapping.references(np.array([1.0, 2.0])).tolist() == [0.5, 0.5, 1.0, 1.0]


def test_roles_with_different_numbers_of_indices_do_not_match() -> None:
    one = Layout.of([Group("a", "r", 0, 1)])
    two = Layout.of([Group("b", "r", 0, 1, 0, (0,), (1,))])
    assert not map_layout(one, two, DepthRule.SUM).matched.any()
    assert not map_layout(two, one, DepthRule.SUM).matched.any()

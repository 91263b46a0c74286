from __future__ import annotations

from datetime import UTC, datetime

import pytest

from advisor.report.mapping import MappingRow, mapping_report
from advisor.report.profile_diff import ChangedFact, profile_difference
from advisor.report.profiles import (
    ProfileRow,
    Spread,
    TemplateRow,
    profile_facts,
    spread_between_seeds,
    unit_rate_table,
)
from advisor.report.texts import Texts
from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_pb2, profile_service_pb2
from tests.building import content_message, describe_tensors

REGISTERED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def version(content: profile_pb2.ProfileContent, number: int = 1) -> profile_pb2.Profile:
    found = profile_pb2.Profile(
        name=f"projects/default/profiles/gpt@{number}",
        content=content,
        digest=f"{number}" * 64,
        aliases=["prod"],
        group_count=4,
    )
    found.create_time.FromDatetime(REGISTERED)
    return found


def test_a_profile_is_listed_with_its_base_learning_rate_and_aliases() -> None:
    content = content_message()
    content.provenance.optimizer, content.provenance.model = "AdamW", "char GPT"
    row = ProfileRow.of(version(content))
    assert row == ProfileRow(
        "gpt@1", 4, content.base_learning_rate, "AdamW", "char GPT", ("prod",), REGISTERED
    )


def test_the_row_of_an_unreadable_profile_has_no_groups() -> None:
    damaged = version(content_message())
    damaged.ClearField("content")
    assert ProfileRow.of(damaged).groups is None


def test_facts_leave_out_what_is_unknown() -> None:
    content = content_message(labels={"team": "nlp", "area": "text"})
    response = profile_service_pb2.GetProfileResponse(profile=version(content), versions=[1, 2])
    facts = {fact.label: fact.value for fact in profile_facts(response)}
    assert facts["name"] == "projects/default/profiles/gpt@1"
    assert facts["registered"] == "2026-01-02 03:04:05 UTC"
    assert facts["versions"] == "1, 2"
    assert facts["base learning rate"] == f"{content.base_learning_rate:.4g}"
    assert facts["labels"] == "area=text, team=nlp"
    assert facts["policy"] == "the defaults"
    assert not {"aliases", "spread", "group aliases", "mask", "weight decay"} & facts.keys()
    response.profile.content.mask = "attention_mask"
    response.profile.content.excludes_weight_decay = True
    facts = {fact.label: fact.value for fact in profile_facts(response)}
    assert facts["mask"] == "attention_mask"
    assert facts["weight decay"] == "excluded from rates"
    japanese = {fact.label: fact.value for fact in profile_facts(response, Texts("ja"))}
    assert japanese["重み減衰"] == "レートから除外"
    assert japanese["ポリシー"] == "既定値"
    assert len(japanese) == len(facts)
    fields = profile_pb2.Provenance.DESCRIPTOR.fields_by_name
    assert all(Texts("ja")(f"provenance.{name}") for name in fields)
    masked = content_message(labels={"team": "nlp", "area": "text"})
    masked.mask = "attention_mask"
    difference = profile_difference(version(content_message()), version(masked))
    assert ChangedFact("mask", None, "attention_mask") in difference.facts


def test_unit_rates_are_shown_at_the_first_the_middle_and_the_last_step() -> None:
    content = content_message(steps=range(0, 50, 10))
    table = unit_rate_table(content)
    assert table.steps == (0, 20, 40)
    assert [row.group for row in table.groups] == [g.name for g in content.layout.groups]
    assert table.groups[1].unit_rates == tuple(content.points[i].unit_rates[1] for i in (0, 2, 4))


def test_the_spread_of_a_merged_profile_is_its_median_and_its_largest() -> None:
    content = content_message()
    assert spread_between_seeds(content) is None
    for point, spread in zip(content.points, (0.5, 0.25, 0.75), strict=True):
        point.spreads.extend([spread])
    assert spread_between_seeds(content) == Spread(0.5, 0.75)


def test_a_template_is_listed_with_its_model() -> None:
    content = content_message()
    provenance = content.provenance
    provenance.optimizer, provenance.model = "SGD", "MLP"
    provenance.width, provenance.depth = 32, 2
    assert TemplateRow.of("mlp", content) == TemplateRow(
        "mlp", 4, content.base_learning_rate, "SGD", "MLP", 32, 2
    )


def test_equal_versions_have_no_differences() -> None:
    content = content_message()
    found = profile_difference(version(content), version(content))
    assert found.is_same
    assert found.facts == ()
    assert {row.ratio for row in found.rates} == {1.0}


def test_a_difference_names_changed_facts_ratios_and_groups_of_one_version_only() -> None:
    old, new = content_message(), content_message()
    new.docs = "Use warm-up."
    new.layout.groups[3].name = "output.weight"
    for point in new.points:
        point.unit_rates[0] *= 2
    old.points[0].unit_rates[1] = 0.0
    found = profile_difference(version(old, 1), version(new, 2))
    assert (found.old, found.new, found.is_same) == ("gpt@1", "gpt@2", False)
    assert ChangedFact("docs", None, "Use warm-up.") in found.facts
    assert (found.only_old, found.only_new) == (("head.weight",), ("output.weight",))
    rows = {row.group: row for row in found.rates}
    assert rows["embed.weight"].ratios == (2.0, 2.0, 2.0)
    assert rows["blocks.0.up.weight"].ratios[0] is None
    assert "head.weight" not in rows


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (0.5, 0.25, ("0.5", "0.25")),
        (1.00001, 1.00002, ("1.00001", "1.00002")),
        (None, "x", ("-", "x")),
        ([1, 2], [1, 3], ("1, 2", "1, 3")),
        (
            [1.0, 2.0, 2.0, 2.0, 3.0],
            [1.5, 2.0, 2.0, 2.0, 3.0],
            ("5 values, median 2", "5 values, median 2, 1 of them different"),
        ),
    ],
)
def test_different_values_are_written_differently(
    old: object, new: object, words: tuple[str, str]
) -> None:
    assert ChangedFact("fact", old, new).words() == words


def test_recordings_of_two_seeds_differ_in_one_fact_about_initial_weights() -> None:
    contents = [content_message(), content_message()]
    for content, rms in zip(contents, (0.02, 0.021), strict=True):
        describe_tensors(content.layout, width=4, rms=rms)
    found = profile_difference(version(contents[0]), version(contents[1]))
    assert found.facts == (ChangedFact("initial rms", [0.02] * 4, [0.021] * 4),)
    row = unit_rate_table(contents[0]).groups[0]
    assert (row.kind, row.shape, row.initial_rms) == ("hidden", (4, 4), 0.02)


def test_a_mapping_is_counted_by_the_way_of_matching() -> None:
    answer = profile_service_pb2.ValidateLayoutResponse(
        profile="projects/default/profiles/gpt@1", refusal="1 of 2 groups have no match"
    )
    answer.mappings.add(
        group="a", match=policy_pb2.MATCH_NAME, depth_factor=0.5, sources=["a", "b"]
    )
    answer.mappings.add(group="x", match=policy_pb2.MATCH_NONE)
    layout = layout_pb2.Layout(groups=[layout_pb2.Group(name="a"), layout_pb2.Group(name="x")])
    report = mapping_report(layout, answer)
    assert report.groups == (
        MappingRow("a", "name", 0.5, ("a", "b")),
        MappingRow("x", "none", None, ()),
    )
    assert report.counts == (("name", 1), ("none", 1))
    assert (report.profile, report.has_sizes) == ("gpt@1", False)
    assert report.refusal == "1 of 2 groups have no match"
    assert not report.has_shapes
    assert not report.has_priors
    layout.groups[0].parameter_count = 3
    assert mapping_report(layout, answer).has_sizes


def test_a_mapping_says_what_the_tensors_are_and_with_which_multiplier_they_start() -> None:
    answer = profile_service_pb2.ValidateLayoutResponse(warnings=["initial weights differ"])
    answer.mappings.add(group="a", match=policy_pb2.MATCH_NONE, prior=0.25)
    answer.mappings.add(group="x", match=policy_pb2.MATCH_NONE)
    layout = layout_pb2.Layout(groups=[layout_pb2.Group(name="a"), layout_pb2.Group(name="x")])
    layout.groups[0].shape[:] = [6, 4]
    layout.groups[0].fan_in = 4
    layout.groups[0].kind = layout_pb2.GROUP_KIND_ADAPTER_A
    report = mapping_report(layout, answer)
    assert report.has_shapes
    assert report.has_priors
    assert report.warnings == ("initial weights differ",)
    tensors = [(r.kind, r.shape, r.fan_in, r.fan_out, r.prior) for r in report.groups]
    assert tensors == [("adapter a", (6, 4), 4, None, 0.25), ("", (), None, None, None)]

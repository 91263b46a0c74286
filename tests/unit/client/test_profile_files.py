"""Files that people edit: what goes out comes back, whatever the words and numbers are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from fslr import ProfileFileError, load_profile, save_layout, save_profile
from fslr.advisor.v1 import layout_pb2, profile_pb2
from fslr.profile_files import fields_of, formatted, load_fields, message_of
from fslr.torch import ModelGroups
from tests.building import content_message

TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], include_characters="\n\t"),
    max_size=60,
) | st.sampled_from([
    *("yes", "no", "on", "null", "~", "", "1", "007", "1e5", "1:30", "2024-01-01", ".inf", "="),
    *("- x", "a: b", "#", "'", '"', "{", "[", "|", "&a", "*a", "!x", "%", "@", "`", " x ", "x\n"),
    *("\nx", "true", "True", "0x1f", "1_000", "\u2028", "\ufeff", "é"),
])
# The largest float32 is written by protobuf as a number above it, which it does not read again.
NUMBERS = st.floats(-(2.0**127), 2.0**127, width=32)


@given(TEXTS, TEXTS, NUMBERS, st.integers(0, 2**53))
def test_words_and_numbers_come_back_from_yaml(
    docs: str, label: str, rate: float, step: int
) -> None:
    content = content_message(labels={"x": label}, docs=docs)
    content.provenance.model = label
    content.points[0].unit_rates[0] = rate
    content.points[2].step = step
    for yaml in (True, False):
        text = formatted(fields_of(content), yaml=yaml)
        if yaml:
            from fslr._yaml import loaded

            fields = loaded(text)
        else:
            import json

            fields = json.loads(text)
        assert message_of(fields, profile_pb2.ProfileContent(), "x") == content


def test_numbers_are_taken_for_text_where_text_is_wanted() -> None:
    fields = {"provenance": {"commit": 1234567}, "labels": {"release": 2024, "ratio": 0.5}}
    content = message_of(fields, profile_pb2.ProfileContent(), "x")
    assert content.provenance.commit == "1234567"
    assert dict(content.labels) == {"release": "2024", "ratio": "0.5"}


def test_numbers_are_the_text_that_was_written(tmp_path: Path) -> None:
    text = (
        "provenance: {commit: 1234567e1, model: 1.10, dataset: 1e3, width: 12}\n"
        "labels: {3: x, torch: 2.10, fast: true}\n"
    )
    (tmp_path / "p.yaml").write_text(text)
    content = load_profile(tmp_path / "p.yaml")
    said = content.provenance
    assert (said.commit, said.model, said.dataset, said.width) == ("1234567e1", "1.10", "1e3", 12)
    assert dict(content.labels) == {"3": "x", "torch": "2.10", "fast": "true"}
    (tmp_path / "p.yaml").write_text(
        "labels: {1: a, true: b, 1.0: c}\nlayout: {frozen_names: [12]}"
    )
    content = load_profile(tmp_path / "p.yaml")
    assert dict(content.labels) == {"1": "a", "true": "b", "1.0": "c"}
    assert list(content.layout.frozen_names) == ["12"]
    (tmp_path / "p.json").write_text('{"provenance": {"commit": 1234567e1}, "labels": {"a": 1.0}}')
    content = load_profile(tmp_path / "p.json")
    assert (content.provenance.commit, content.labels["a"]) == ("1234567e1", "1.0")


def test_plain_data_has_integers_and_each_point_its_step() -> None:
    fields = fields_of(content_message())
    assert [point["step"] for point in fields["points"]] == [0, 10, 20]
    assert json_format.MessageToDict(content_message())["points"][1]["step"] == "10"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.yaml", "docs: a\ndocs: b", r"p\.yaml is not YAML: 'docs' is given twice.* line 2"),
        ("p.json", '{"docs": "a", "docs": "b"}', r"p\.json is not JSON: 'docs' is given twice"),
        ("p.json", "[" * 100_000, r"p\.json is not JSON: "),
        ("p.yaml", "provenance: {record_time: 2023-11-14}", "is not a profile: .*record_time"),
        ("p.yaml", "labels: [a]", "is not a profile: "),
        ("p.yaml", "points: 3", "is not a profile: "),
        ("p.yaml", "? [a]\n: b", "is not a profile: |is not YAML"),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ProfileFileError, match=message):
        load_profile(tmp_path / name)


def test_a_large_profile_is_read_in_seconds(tmp_path: Path) -> None:
    names = [f"blocks.{i}.weight" for i in range(500)]
    save_profile(content_message(names, steps=range(50)), tmp_path / "p.yaml")
    assert len(load_fields(tmp_path / "p.yaml")["points"]) == 50


@pytest.mark.parametrize("name", ["layout.json", "layout.yaml"])
def test_a_layout_comes_back_with_its_sizes(tmp_path: Path, name: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    model[0].bias.requires_grad_(False)
    layout = ModelGroups(model, torch.optim.SGD(model.parameters(), lr=0.1)).layout()
    save_layout(layout, tmp_path / name)
    fields = load_fields(tmp_path / name)
    assert [group["parameter_count"] for group in fields["groups"]] == [15, 10, 2]
    assert message_of(fields, layout_pb2.Layout(), name) == layout


def test_a_layout_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProfileFileError, match=r"absent/layout\.json cannot be written"):
        save_layout(layout_pb2.Layout(), tmp_path / "absent" / "layout.json")

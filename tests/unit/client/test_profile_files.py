"""Profile and layout files: what is saved is loaded again, and bad files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from fslr import ProfileFileError, _yaml, load_profile, save_layout, save_profile
from fslr.advisor.v1 import layout_pb2, profile_pb2
from fslr.profile_files import format_fields, load_fields, message_from_fields, message_to_fields
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
def test_text_and_numbers_survive_a_round_trip(
    docs: str, label: str, rate: float, step: int
) -> None:
    content = content_message(labels={"x": label}, docs=docs)
    content.provenance.model = label
    content.points[0].unit_rates[0] = rate
    content.points[2].step = step
    for yaml in (True, False):
        text = format_fields(message_to_fields(content), yaml=yaml)
        fields = _yaml.load(text) if yaml else json.loads(text)
        assert message_from_fields(fields, profile_pb2.ProfileContent(), "x") == content


def test_text_fields_accept_numbers() -> None:
    fields = {"provenance": {"commit": 1234567}, "labels": {"release": 2024, "ratio": 0.5}}
    content = message_from_fields(fields, profile_pb2.ProfileContent(), "x")
    assert content.provenance.commit == "1234567"
    assert dict(content.labels) == {"release": "2024", "ratio": "0.5"}


def test_text_fields_keep_numbers_as_they_are_written_in_the_file(tmp_path: Path) -> None:
    text = (
        "provenance: {commit: 1234567e1, model: 1.10, dataset: 1e3, width: 12}\n"
        "labels: {3: x, torch: 2.10, fast: true}\n"
    )
    (tmp_path / "p.yaml").write_text(text)
    content = load_profile(tmp_path / "p.yaml")
    origin = content.provenance
    assert (origin.commit, origin.model, origin.dataset) == ("1234567e1", "1.10", "1e3")
    assert origin.width == 12
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


def test_fields_hold_64_bit_integers_as_numbers_and_the_step_of_each_point() -> None:
    fields = message_to_fields(content_message())
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
        ("p.yaml", "? [a]\n: b", "is not YAML: line 1 has a list or a mapping as a key"),
        ("p.yaml", "- a", "is not a profile: it has no fields; write `name: value` pairs"),
        (
            "p.yaml",
            "weight: 1",
            "no field named .weight.*; the top-level fields are layout",
        ),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ProfileFileError, match=message):
        load_profile(tmp_path / name)


def test_a_large_profile_is_read_in_seconds(tmp_path: Path) -> None:
    names = [f"blocks.{i}.weight" for i in range(500)]
    save_profile(content_message(names, steps=range(50)), tmp_path / "p.yaml")
    assert len(load_fields(tmp_path / "p.yaml")["points"]) == 50


@pytest.mark.parametrize("name", ["layout.json", "layout.yaml"])
def test_a_layout_survives_a_round_trip(tmp_path: Path, name: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    model[0].bias.requires_grad_(False)
    layout = ModelGroups(model, torch.optim.SGD(model.parameters(), lr=0.1)).layout()
    save_layout(layout, tmp_path / name)
    fields = load_fields(tmp_path / name)
    assert [group["parameter_count"] for group in fields["groups"]] == [15, 10, 2]
    assert message_from_fields(fields, layout_pb2.Layout(), name) == layout


def test_a_layout_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProfileFileError, match=r"absent/layout\.json cannot be written"):
        save_layout(layout_pb2.Layout(), tmp_path / "absent" / "layout.json")

"""Each warning that the service can write is recognized, and shown in Japanese with its values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
import pytest

from advisor.advising.initial_weights import _Mismatch, _Role, _scale_message
from advisor.advising.mismatch_warnings import (
    Training,
    mask_difference,
    opening_differences,
    recording_differences,
    weight_decay_difference,
)
from advisor.advising.recipe_warnings import _missing, disagreement, growth_without_rule
from advisor.policy import GroupKind, Layout, Measurement, RecordingFlaw, recording_flaws
from advisor.recipes import Ratio, shipped_recipe
from advisor.recipes.apply import NoRule
from advisor.recipes.check import _CHOOSE, _WITHOUT_RULE
from advisor.registry.resource_names import RunName
from advisor.report import warning_texts
from advisor.report.texts import Texts
from advisor.report.texts.tables import all_texts
from advisor.report.warning_texts import warning_text
from advisor.rpc.advisor_service import _concurrent_warning
from advisor.wire.layouts import layout_from_proto
from fslr.advisor.v1 import advisor_service_pb2 as pb
from tests.building import layout_message, profile_of
from tests.unit.advising import test_initial_weights as initial
from tests.unit.advising import test_mismatch_warnings as mismatch
from tests.unit.policy import test_recording_quality as recording
from tests.unit.recipes.layouts import applied, transformer

ENGLISH, JAPANESE = Texts("en"), Texts("ja")


def written() -> Iterator[str]:
    """Yield messages of the functions that write warnings, at least one of each wording."""
    training = Training(base_learning_rate=0.02, optimizer="SGD", batch_size=64, loss_name="MSE")
    yield from (d.message for d in opening_differences(0.01, mismatch.PROVENANCE, training))
    constant, decaying = mismatch.schedule(0), mismatch.schedule(0, decaying=True)
    yield from mismatch.warned(mismatch.schedule(100), constant).values()
    yield from mismatch.warned(constant, mismatch.schedule(200)).values()
    yield from mismatch.schedule_warnings(decaying, constant).values()
    yield from mismatch.schedule_warnings(constant, decaying).values()
    one, profile = np.ones(1), profile_of(["a"], [[1.0]])
    for excludes in (True, False):
        found = dataclasses.replace(profile, excludes_weight_decay=excludes)
        measured = Measurement(0, one, one, one, excludes_weight_decay=not excludes)
        yield from (d.message for d in weight_decay_difference(found, measured))
    for recorded, own in (("labels", ""), ("", "labels"), ("labels", "pads")):
        found = dataclasses.replace(profile, mask=recorded)
        measured = Measurement(0, one, one, one, mask=own)
        yield from (d.message for d in mask_difference(found, measured))
    yield from (d.message for d in recording_differences(flaws()))
    yield from (flaw.message for flaw in flaws())
    yield from initial_weights()
    yield (
        "the profile lacks 12 roles of the run, and the nearest ones stand in: a.*.q -> a.*.qkv "
        "and 2 more; if they are the same layers, add them to the profile's alias table"
    )
    yield (
        "the profile lacks 1 role of the run, and the nearest one stands in: a.*.q -> a.*.qkv; if "
        "they are the same layers, add them to the profile's alias table"
    )
    yield from recipe_warnings()
    answer = pb.RecommendLRResponse.FromString(_concurrent_warning(RunName("default", "night")))
    yield answer.warnings[0].message


def recipe_warnings() -> Iterator[str]:
    """Yield messages about a recipe: a disagreement in many roles, and each missing rule."""
    layout = layout_from_proto(layout_message([f"{name}.weight" for name in "abcdefg"]))
    ratios, priors, errors = np.full(7, 3.0), np.full(7, 0.5), np.full(7, 0.01)
    yield from (d.message for d in disagreement("mup-adam", layout, ratios, priors, errors))
    for reason in NoRule:
        yield from _missing("mup-adam", layout, [reason] * 7)
    growths = ("depth grows by 3", "the number of experts grows by 2 to 4", "fan-in grows by 8")
    for growth in growths:
        remedy = _WITHOUT_RULE[Ratio.EXPERTS] if "experts" in growth else _CHOOSE
        message = f"the recipe own@2 does not fit the model: {growth}, and own has no rule for it"
        yield f"{message}; {remedy}"
        yield f"{message}; {remedy} (a.weight, b.weight and 2 more)"
    base, deep = transformer(64, 2), transformer(64, 6)
    plain = Layout.of(dataclasses.replace(g, residual_output=False) for g in deep.groups)
    for name, run in (("mup-adam", deep), ("completep", plain)):
        found = growth_without_rule(name, run, applied(shipped_recipe(name), run, base))
        assert found
        yield from (d.message for d in found)


def flaws() -> list[RecordingFlaw]:
    """Return flaws of every kind."""
    spikes = ({"step100": 12.0}, {"step100": 8.0, "step200": 20.0})
    peaks = (np.linspace(peak, peak / 10, len(recording.STEPS)) for peak in (0.05, 0.002))
    errors = np.full((len(recording.STEPS), len(recording.GROUPS)), 0.7, dtype=np.float32)
    zeros = np.ones(errors.shape)
    zeros[:, :] = 0.0
    profiles = [
        *(recording.recorded(recording.factors(**each), noise=0.05) for each in spikes),
        *(recording.recorded(learning_rates=each, base_learning_rate=0.01) for each in peaks),
        recording.recorded(noise=1.6),
        recording.recorded(total_steps=3000),
        recording.recorded(relative_errors=errors),
        recording.recorded(zeros),
        dataclasses.replace(profile_of(["a"], [[1.0]], [3]), total_steps=100),
    ]
    return [flaw for profile in profiles for flaw in recording_flaws(profile)]


def initial_weights() -> Iterator[str]:
    """Yield messages about initial weights."""
    for kind, width, depth, expected in (
        (GroupKind.EMBEDDING, 4.0, 1.0, 1.0),
        (GroupKind.HIDDEN, 1.0, 1.0, 1.0),
        (GroupKind.HIDDEN, 4.0, 1.0, 0.5),
        (GroupKind.HIDDEN, 1.1, 4.0, 0.5),
        (GroupKind.HIDDEN, 4.0, 4.0, 0.25),
    ):
        roles = [_Role(f"r{i}", kind, 0.02, 0.02, width, depth) for i in range(6)]
        message = _scale_message([_Mismatch(role, expected) for role in roles])
        yield message
        yield f"{message}; 3 more roles differ in other ways"
        yield f"{message}; 1 more role differs in other ways"
    alike = initial.layout(96, initial.gpt2_with_width)
    zero = initial.layout(96, initial.zero_projections)
    yield from initial.warnings(alike, zero)
    yield from initial.warnings(zero, alike)


def test_every_warning_is_known_and_keeps_its_values_in_japanese() -> None:
    used: set[str] = set()
    for message in written():
        japanese = warning_text(message, JAPANESE)
        assert "原文" not in japanese, message
        assert re.search(r"[ぁ-ん]", japanese), message
        numbers = r"\d+(?:\.\d+)?"
        assert set(re.findall(numbers, message)) <= set(re.findall(numbers, japanese)), message
        assert warning_text(message, ENGLISH) == message
        used.update(k for k, pattern in warning_texts._patterns() if pattern.fullmatch(message))
    assert used == {key for key, _ in warning_texts._patterns()}


@pytest.mark.parametrize(
    ("kind", "subject"),
    [(pb.WARNING_KIND_MASK, "マスク"), (pb.WARNING_KIND_UNSPECIFIED, "警告"), (99, "警告")],
)
def test_a_wording_of_a_different_service_is_shown_after_its_subject(
    kind: int, subject: str
) -> None:
    assert warning_text("masks {differ}", ENGLISH, kind) == "masks {differ}"
    text = warning_text("masks {differ}", JAPANESE, kind)
    assert text.startswith(subject)
    assert "原文" in text
    assert text.endswith("masks {differ}")


def test_every_kind_has_a_subject() -> None:
    names = [kind.name for kind in pb.WarningKind.DESCRIPTOR.values]
    subjects = {f"warning.subject.{name.removeprefix('WARNING_KIND_')}" for name in names}
    assert subjects <= {key for key in all_texts() if key.startswith("warning.subject.")}

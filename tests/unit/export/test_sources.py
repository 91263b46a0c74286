"""Multipliers of runs and of answers, and what is done to them before they are written."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.export.errors import ExportError
from advisor.export.rows import (
    Export,
    ExportRow,
    Settings,
    by_role,
    keeping_decay,
    rounded,
    trainer_names,
)
from advisor.export.sources import averaged, of_answer, of_run, weight_decay_rule
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2, run_service_pb2
from tests.building import NAMES, layout_message, opening_message


def event(
    step: int, *multipliers: float, following: int = 0, learning_rates: tuple[float, ...] = ()
) -> run_service_pb2.RunEvent:
    return run_service_pb2.RunEvent(
        measurement=pb.Measurement(step=step, learning_rates=learning_rates),
        recommendation=pb.RecommendLRResponse(
            step=step,
            profile="projects/p/profiles/gpt@3",
            multipliers=multipliers,
            outcomes=[policy_pb2.OUTCOME_MATCHED] * len(multipliers),
            next_measurement_step=following or step + 100,
        ),
    )


def run_of(**opening: object) -> run_service_pb2.Run:
    message = opening_message("projects/p/profiles/gpt", run="projects/p/runs/big")
    message.MergeFrom(pb.RunOpening(**opening))  # type: ignore[arg-type]
    return run_service_pb2.Run(name="projects/p/runs/big", opening=message)


def test_an_average_is_weighted_by_the_steps_that_a_multiplier_was_in_force() -> None:
    events = [event(0, 16.0), event(100, 4.0), event(300, 1.0)]
    found = averaged(events, 0.75)  # steps 100 to 400: 200 with 4, 100 with 1
    assert found.multipliers == pytest.approx([4 ** (2 / 3)])
    assert (found.first_step, found.last_step, found.measurements) == (100, 400, 2)
    everything = averaged(events, 1.0)
    assert everything.multipliers == pytest.approx([(16 * 4 * 4) ** (1 / 4)])
    assert (everything.first_step, everything.measurements) == (0, 3)


def test_an_average_over_nothing_is_the_last_multipliers() -> None:
    found = averaged([event(0, 16.0), event(100, 4.0)], 0.0)
    assert found.multipliers == pytest.approx([4.0])
    assert (found.first_step, found.last_step, found.measurements) == (100, 200, 1)


def test_a_run_ends_at_its_planned_steps() -> None:
    events = [event(0, 4.0), event(100, 1.0, following=10_000)]
    assert averaged(events, 1.0, total_steps=200).multipliers == pytest.approx([2.0])


def test_answers_before_a_resumed_step_do_not_count_twice() -> None:
    events = [event(0, 4.0), event(100, 64.0), event(200, 64.0), event(100, 1.0)]
    found = averaged(events, 1.0)
    assert found.multipliers == pytest.approx([2.0])
    assert found.measurements == 2


def test_a_single_answer_at_step_0_is_an_average() -> None:
    assert averaged([event(0, 3.0)], 0.5).multipliers == pytest.approx([3.0])


def test_a_run_says_where_its_multipliers_come_from() -> None:
    events = [event(0, 1, 1, 1, 1), event(100, 1, 2, 4, 8)]
    run = run_of(base_learning_rate=0.02, optimizer="AdamW")
    last = of_run(run, events, 0.0)
    assert last.origin == (
        "From run big (profile gpt@3): the last multipliers, answered at step 100",
    )
    assert [row.multiplier for row in last.rows] == pytest.approx([1, 2, 4, 8])
    assert [row.name for row in last.rows] == list(NAMES)
    assert last.rows[1].role == "blocks.*.up.weight"
    assert last.rows[0].optimizer == "AdamW"
    assert last.learning_rate == 0.02
    half = of_run(run, events, 0.5)
    assert "geometric means of the multipliers over steps 100 to 200, 1 answers" in half.origin[0]


def test_groups_of_different_learning_rates_keep_their_ratio() -> None:
    events = [
        event(0, 1, 1, 2, 1, learning_rates=(1e-2, 1e-3, 1e-3, 0)),
        event(100, 1, 1, 2, 1, learning_rates=(0, 0, 0, 0)),  # the schedule has ended
    ]
    found = of_run(run_of(), events, 0.0)
    assert [row.factor for row in found.rows] == [1.0, 0.1, 0.2, 0.0]
    assert [row.multiplier for row in found.rows] == pytest.approx([1, 1, 2, 1])


def test_a_run_that_only_observed_says_so() -> None:
    found = of_run(run_of(observe_only=True), [event(0, 1, 1, 1, 1)], 0.5)
    assert "did not apply these multipliers" in found.notes[0]


@pytest.mark.parametrize(
    ("events", "match"),
    [
        ([], "run big has 0 answers, and none to a measurement of its layout"),
        ([event(0, 1.0, 2.0)], "run big has 1 answers of an earlier layout, and none"),
    ],
)
def test_a_run_without_an_answer_is_refused(
    events: list[run_service_pb2.RunEvent], match: str
) -> None:
    with pytest.raises(ExportError, match=match):
        of_run(run_of(), events, 0.5)


def answer_of(priors: list[float], **fields: object) -> pb.RecommendLRResponse:
    return pb.RecommendLRResponse(
        profile="projects/p/profiles/gpt@3",
        digest="0123456789abcdef",
        multipliers=[prior or 1 for prior in priors],
        priors=priors,
        outcomes=[policy_pb2.OUTCOME_HELD_ZERO_RATE] * len(priors),
        **fields,  # type: ignore[arg-type]
    )


def test_without_a_measurement_the_multipliers_are_priors() -> None:
    request = pb.RecommendLRRequest(opening=opening_message("projects/p/profiles/gpt"))
    found = of_answer(request, answer_of([0.5, 0.25, 0.25, 0]))
    assert [(row.multiplier, row.outcome) for row in found.rows] == [
        (0.5, "prior"),
        (0.25, "prior"),
        (0.25, "prior"),
        (1.0, "no prior"),
    ]
    assert "priors from shapes for 3 of 4 parameters, without a measurement" in found.origin[0]
    assert found.notes == ("1 of 4 parameters has no prior: its multiplier is 1",)


def test_with_a_measurement_they_are_its_answer() -> None:
    request = pb.RecommendLRRequest(opening=opening_message("projects/p/profiles/gpt"))
    request.measurement.unit_rates.extend([1, 0, 0, 0])
    answer = answer_of([0.0] * 4, step=7, warnings=[pb.Warning(message="a difference")])
    answer.outcomes[3] = policy_pb2.OUTCOME_UNMATCHED
    found = of_answer(request, answer, "file.yaml")
    assert found.origin == (
        "From profile file.yaml (digest 0123456789ab): the answer to the measurement at step 7",
    )
    assert found.notes == (
        "1 of 4 parameters has no counterpart in the profile",
        "a difference",
    )


def test_an_answer_with_nothing_in_it_is_refused() -> None:
    request = pb.RecommendLRRequest(opening=opening_message("projects/p/profiles/gpt"))
    with pytest.raises(ExportError, match=r"every multiplier would be 1: .*save_layout"):
        of_answer(request, answer_of([0.0] * 4))


def test_vectors_are_known_by_kind_shape_or_name() -> None:
    layout = layout_message(("a.gain", "b.table", "c.bias", "d.weight"))
    layout.groups[0].kind = layout_pb2.GROUP_KIND_VECTOR
    layout.groups[1].kind = layout_pb2.GROUP_KIND_EMBEDDING
    layout.groups[3].shape.append(7)
    request = pb.RecommendLRRequest(opening=pb.RunOpening(layout=layout))
    found = of_answer(request, answer_of([1.0] * 4))
    assert [row.is_vector for row in found.rows] == [True, False, True, True]


def test_the_rule_about_weight_decay_is_that_of_the_last_answer() -> None:
    independent = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT
    coupled = policy_pb2.WEIGHT_DECAY_RULE_COUPLED
    answers = [answer_of([1.0], weight_decay=rule) for rule in (coupled, independent)]
    assert weight_decay_rule(answers) == independent
    assert weight_decay_rule(answers[:1]) == coupled
    assert weight_decay_rule([answer_of([1.0])]) == coupled  # of an older service


def rows(*multipliers: float, role: str = "") -> Export:
    found = (ExportRow(f"l.{i}.w", role or f"r{i}", m) for i, m in enumerate(multipliers))
    return Export(tuple(found), ())


def test_multipliers_are_rounded_to_values_per_octave() -> None:
    export = rounded(rows(1.02, 0.98, 0.26, 1 / 3, 0.0), 8)
    assert [row.multiplier for row in export.rows] == [1.0, 1.0, 0.25, 0.3242, 0.0]
    values = np.exp(np.linspace(-6, 6, 200)).tolist()
    found = [row.multiplier for row in rounded(rows(*values), 8).rows]
    assert np.abs(np.log2(np.array(found) / values)).max() <= 1 / 16 + 1e-4
    exact = rounded(rows(1 / 3, 0.123456), 0)
    assert [row.multiplier for row in exact.rows] == [0.3333, 0.1235]


def test_a_role_has_the_geometric_mean_of_its_blocks() -> None:
    export = by_role(rows(0.5, 2.0, 0.0, role="l.*.w"))
    assert [row.multiplier for row in export.rows] == pytest.approx([1, 1, 0])
    assert "by at most a factor of 2" in export.origin[-1]


def test_kept_decay_divides_the_setting_by_the_multiplier() -> None:
    export = keeping_decay(rows(0.5, 4.0, 0.0), Settings(optimizer="adamw_torch_fused"))
    assert [row.decay_factor for row in export.rows] == [2.0, 0.25, 1.0]
    assert not export.notes
    assert [r.decay_factor for r in keeping_decay(rows(0.5), Settings(optimizer="SGD")).rows] == [2]


def test_decay_in_a_normalized_gradient_cannot_be_kept() -> None:
    export = keeping_decay(rows(0.5, 4.0), Settings(optimizer="Adam"))
    assert [row.decay_factor for row in export.rows] == [1.0, 1.0]
    assert "Adam normalizes the gradient that the decay is part of: for 2 par" in export.notes[0]


def test_names_lose_what_wrappers_add() -> None:
    assert trainer_names([
        "module.layers.0._checkpoint_wrapped_module.w",
        "module._orig_mod.base_model.model.head.w",
    ]) == ["layers.0.w", "base_model.model.head.w"]
    assert trainer_names(["module.a", "b"]) == ["module.a", "b"]
    assert trainer_names(["_orig_mod.a", "a"]) == ["_orig_mod.a", "a"]

"""What a person is told about an advised run: log lines, ``repr`` and ``by_name``."""

from __future__ import annotations

import logging

import pytest

from fslr import AdviceAdopted, Event, GroupAdvice, Started, Warned
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_service_pb2
from fslr.training.advised_run import AdvisedRun
from fslr.training.events import LogListener
from fslr.training.summaries import held_words, outcome_words, range_words
from tests.unit.training.numbers_runs import LAYOUT, NAMES, WIDE, advised
from tests.unit.training.numbers_training import NumbersTraining
from tests.unit.training.test_starts_of_runs import PRIORS, STARTS, StartingAdvisor

_OPENING = pb.RunOpening(layout=LAYOUT)
_MAPPING = profile_service_pb2.ValidateLayoutResponse(
    profile="projects/default/profiles/gpt@3",
    mappings=[
        profile_service_pb2.GroupMapping(group=name, prior=prior)
        for name, prior in zip(NAMES, PRIORS, strict=True)
    ],
)


def start_line(
    caplog: pytest.LogCaptureFixture,
    opening: pb.RunOpening = _OPENING,
    mapping: profile_service_pb2.ValidateLayoutResponse | None = _MAPPING,
) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO, "fslr"):
        LogListener()(Started(0, opening, STARTS, mapping))
    return caplog.text and caplog.records[0].getMessage()


def test_a_run_logs_one_line_at_its_start(caplog: pytest.LogCaptureFixture) -> None:
    assert start_line(caplog) == (
        "advice from gpt@3 under the profile's rules; 4 of 4 groups have a counterpart; "
        "multipliers start at 0.5 to 1, 3 of them from shapes"
    )
    mapping = profile_service_pb2.ValidateLayoutResponse(
        policy="projects/default/policies/team@2", unmatched=NAMES[2:]
    )
    mapping.MergeFrom(_MAPPING)
    assert start_line(caplog, mapping=mapping) == (
        "advice from gpt@3 under policy team@2; 2 of 4 groups have a counterpart; held without "
        "one: blocks.1.up.weight, head.weight; multipliers start at 0.5 to 1, 3 of them from shapes"
    )
    own = pb.RunOpening(layout=LAYOUT, policy=policy_pb2.Policy(), observe_only=True)
    line = start_line(caplog, own, mapping)
    assert line.startswith("advice from gpt@3 under the run's own rules; ")
    assert line.endswith("; they are not applied (observe_only)")
    assert start_line(caplog, mapping=None) == ""


def test_a_long_list_of_groups_without_counterpart_is_shortened(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mapping = profile_service_pb2.ValidateLayoutResponse(unmatched=[f"g{i}" for i in range(6)])
    opening = pb.RunOpening(layout=layout_pb2.Layout(groups=LAYOUT.groups))
    assert "held without one: g0, g1, g2, g3 and 2 more;" in start_line(caplog, opening, mapping)


def adopted(step: int, *multipliers: float, speaks: bool = True) -> AdviceAdopted:
    zero, low = policy_pb2.OUTCOME_HELD_ZERO_RATE, policy_pb2.OUTCOME_HELD_LOW_CONFIDENCE
    outcomes = [policy_pb2.OUTCOME_MATCHED, zero, zero, low]
    answer = pb.RecommendLRResponse(outcomes=outcomes) if speaks else None
    return AdviceAdopted(step, multipliers, step + 1, answer)


def test_a_run_logs_large_changes_of_advice_but_not_every_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = LogListener()
    with caplog.at_level(logging.INFO, "fslr"):
        listener(Started(0, _OPENING, (1.0, 0.5, 1.0, 1.0), None))
        listener(adopted(0, 1.9, 0.9, 0.51, 2.0))
        assert not caplog.records
        listener(adopted(1, 1.9, 0.11, 0.51, 2.0))
        for step in range(2, 11):
            listener(adopted(step, 1.9, 0.5, 0.51, 2.0))
        assert len(caplog.records) == 1
        for step in range(11, 21):
            listener(adopted(step, 1.9, 0.5, 0.51, 2.0))
    held = "; of 4 groups 3 held (2 zero rate, 1 low confidence)"
    changed = "blocks.0.up.weight changed most, from"
    assert [record.getMessage() for record in caplog.records] == [
        f"step 1: multipliers are 0.11 to 2; {changed} 0.5 to 0.11{held}",
        f"step 11: multipliers are 0.5 to 2; {changed} 0.11 to 0.5{held}",
    ]


def test_only_the_rank_that_talks_to_the_advisor_logs_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "fslr"):
        LogListener()(adopted(0, 9.0, 9.0, 9.0, 9.0, speaks=False))
        assert not caplog.records
        LogListener()(adopted(0, 9.0, 1.0, 1.0, 1.0))
    assert "multipliers are 1 to 9; group 0 changed most, from 1 to 9;" in caplog.text


def started(advisor: StartingAdvisor, events: list[Event]) -> tuple[NumbersTraining, AdvisedRun]:
    training = NumbersTraining(WIDE)
    run = advised(training, advisor, listeners=[events.append])
    run.check()
    return training, run


def test_the_start_is_an_event_before_the_warnings() -> None:
    events: list[Event] = []
    advisor = StartingAdvisor(warnings=["one"])
    _, run = started(advisor, events)
    first, second = events
    assert isinstance(first, Started)
    assert (first.step, first.multipliers) == (0, STARTS)
    assert first.opening.layout == LAYOUT
    assert first.mapping == advisor.validate_layout(first.opening)
    assert second == Warned(0, "one")
    assert repr(run) == ("<AdvisedRun: profile numbers@1, step 0, 4 groups, multipliers 0.5 to 1>")


def test_what_is_known_about_groups_is_found_by_name() -> None:
    training, run = started(StartingAdvisor(), [])
    before = run.by_name()
    assert list(before) == list(NAMES)
    assert before[NAMES[1]] == GroupAdvice(0.5, None, None, None, prior=0.5)
    assert before[NAMES[3]] == GroupAdvice(1.0, None, None, None, prior=None)
    training.sensitivities[3] = 0.0
    training.train(run, 2)
    after = run.by_name()
    moved = after[NAMES[1]]
    assert (moved.outcome, moved.prior) == ("matched", 0.5)
    known = [moved.multiplier, moved.unit_rate, moved.reference]
    assert known == pytest.approx([0.25, 8.0, 2.0])
    assert after[NAMES[3]] == GroupAdvice(1.0, "held zero rate", 0.0, 0.5, prior=None)
    assert repr(run) == (
        "<AdvisedRun: profile in-process@1, step 2, 4 groups, 1 held (1 zero rate), "
        "multipliers 0.25 to 1>"
    )


def test_an_answer_without_outcomes_leaves_them_unknown() -> None:
    class Terse(StartingAdvisor):
        def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
            answer = super().recommend(measurement)
            answer.ClearField("outcomes")
            answer.ClearField("reference_unit_rates")
            return answer

    training, run = started(Terse(), [])
    training.train(run, 1)
    advice = run.by_name()[NAMES[0]]
    assert advice.multiplier == pytest.approx(1.0)
    assert (advice.outcome, advice.reference) == (None, None)


def test_summaries_are_short() -> None:
    assert range_words([1.0, 1.0]) == "1"
    assert range_words([0.01234, 3.0, 1024.0]) == "0.0123 to 1.02e+03"
    assert held_words([policy_pb2.OUTCOME_MATCHED]) == "none held"
    assert held_words([policy_pb2.OUTCOME_UNMATCHED, 99]) == "1 held (1 unmatched)"
    assert outcome_words(99) == "99"

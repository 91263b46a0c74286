from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from advisor.policy import Limit
from advisor.report.explanation import explain
from advisor.report.runs import MeasurementRow, RunRow, run_state
from advisor.report.words import limit_sentence, limit_word, outcome_sentence, outcome_word
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, run_service_pb2
from tests.building import opening_message

NEWER_OUTCOME: Any = max(policy_pb2.Outcome.values()) + 7
OPENING = opening_message("projects/default/profiles/gpt", ["embed", "head"])


def event(**changes: Any) -> run_service_pb2.RunEvent:
    """Return a measurement of two groups and its answer."""
    measurement = pb.Measurement(
        step=20,
        unit_rates=[2.0, 0.0],
        relative_errors=[0.25, 0.0],
        learning_rates=[0.5, 0.25],
        loss=2.5,
        total_rate=0.125,
        shares=[1.5, -0.5],
        linearity_error=0.5,
    )
    answer = pb.RecommendLRResponse(
        step=20,
        profile="projects/default/profiles/gpt@3",
        profile_step=10.0,
        multipliers=[0.5, 1.0],
        outcomes=[policy_pb2.OUTCOME_MATCHED, policy_pb2.OUTCOME_HELD_ZERO_RATE],
        reference_unit_rates=[1.0, 4.0],
        depth_factors=[1.0, 2.0],
        raw_multipliers=[0.5, 0.0],
        limits=[0, 2 + 4],
        next_measurement_step=45,
    )
    answer.MergeFrom(pb.RecommendLRResponse(**changes))
    return run_service_pb2.RunEvent(measurement=measurement, recommendation=answer)


def request(measurement: pb.Measurement) -> pb.RecommendLRRequest:
    return pb.RecommendLRRequest(opening=OPENING, measurement=measurement)


def test_a_run_is_listed_with_short_names_and_utc_times() -> None:
    run = run_service_pb2.Run(
        name="projects/default/runs/night", opening=OPENING, last_step=7, measurements=3
    )
    create_time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    run.create_time.FromDatetime(create_time)
    run.update_time.FromDatetime(create_time)
    run.lost_measurements = 2
    now = create_time + timedelta(minutes=1)
    assert RunRow.of(run, now) == RunRow(
        *("night", "gpt", 7, 3, 2, create_time, create_time),
        *("training", None, None),
    )
    run.loss, run.learning_rate = 2.5, 0.01
    assert (RunRow.of(run, now).loss, RunRow.of(run, now).learning_rate) == (2.5, 0.01)


@pytest.mark.parametrize(
    ("measurements", "age_min", "total_steps", "next_step", "concurrent_min", "ended", "state"),
    [
        (1, 14, 0, 5, None, False, "training"),
        (1, 16, 0, 5, None, False, "silent"),
        (11, 25, 0, 5, None, False, "training"),  # one measurement every 10 minutes
        (11, 35, 0, 5, None, False, "silent"),
        (1, 1, 100, 99, None, False, "training"),
        (1, 1, 100, 100, None, False, "finished"),
        (1, 1_000, 100, 120, None, False, "finished"),
        (1, 1, 0, 5, 10, False, "two jobs"),
        (1, 1, 0, 5, 70, False, "training"),  # long ago
        (1, 1, 100, 99, None, True, "ended"),
        (1, 16, 0, 5, None, True, "ended"),
        (1, 1, 100, 100, None, True, "finished"),
        (1, 1, 0, 5, 10, True, "two jobs"),  # the other one may still train
    ],
)
def test_a_run_has_a_state(
    measurements: int,
    age_min: int,
    total_steps: int,
    next_step: int,
    concurrent_min: int | None,
    ended: bool,
    state: str,
) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    updated = now - timedelta(minutes=age_min)
    run = run_service_pb2.Run(measurements=measurements, next_measurement_step=next_step)
    run.opening.total_steps = total_steps
    run.update_time.FromDatetime(updated)
    run.create_time.FromDatetime(updated - timedelta(minutes=100))
    if concurrent_min is not None:
        run.concurrent_time.FromDatetime(updated - timedelta(minutes=concurrent_min))
    if ended:
        run.end_time.FromDatetime(updated)
    assert run_state(run, now) == state


def test_a_measurement_has_its_multipliers_summarized_and_its_outcomes_counted() -> None:
    row = MeasurementRow.of(event(stale=True))
    assert row == MeasurementRow(
        step=20,
        loss=2.5,
        total_rate=0.125,
        linearity_error=0.5,
        min_multiplier=0.5,
        median_multiplier=0.75,
        max_multiplier=1.0,
        next_step=45,
        outcomes=(("matched", 1), ("held zero rate", 1)),
        is_stale=True,
    )


def test_a_value_that_was_not_reported_is_none() -> None:
    bare = event()
    for field in ("loss", "total_rate", "linearity_error", "shares", "learning_rates"):
        bare.measurement.ClearField(field)
    row = MeasurementRow.of(bare)
    assert (row.loss, row.total_rate, row.linearity_error) == (None, None, None)


def test_an_explanation_follows_each_group_from_measurement_to_multiplier() -> None:
    stored = event()
    stored.recommendation.warnings.add(message="different warm-up")
    found = explain(request(stored.measurement), stored.recommendation)
    assert (found.profile, found.step, found.profile_step) == ("gpt@3", 20, 10.0)
    assert found.is_measured
    assert found.warnings == ("different warm-up",)
    assert [row.limits for row in found.groups] == [(), ("max multiplier", "slew")]
    assert [(row.measured, row.reference, row.raw) for row in found.groups] == [
        (2.0, 1.0, 0.5),
        (0.0, 4.0, 0.0),
    ]
    assert [(row.depth_factor, row.in_force) for row in found.groups] == [(1.0, 1.0), (2.0, 1.0)]
    assert [outcome for outcome, _ in found.outcomes] == ["matched", "held zero rate"]
    assert found.counts == (("matched", 1), ("held zero rate", 1))
    assert (found.lowest, found.highest) == (0.5, 1.0)
    assert [limit for limit, _ in found.limits] == ["max multiplier", "slew"]
    assert [row.prior for row in found.groups] == [0.0, 0.0]
    stored.recommendation.priors[:] = [0.25, 0.0]
    stored.recommendation.limits[:] = [int(Limit.CORRECTION), int(Limit.RELATIVE_UPDATE)]
    found = explain(request(stored.measurement), stored.recommendation)
    assert [row.prior for row in found.groups] == [0.25, 0.0]
    assert [row.limits for row in found.groups] == [("correction",), ("relative update",)]
    assert [limit for limit, _ in found.limits] == ["correction", "relative update"]


def test_an_explanation_without_rates_is_not_measured() -> None:
    stored = event()
    stored.measurement.unit_rates[:] = [0.0, 0.0]
    assert not explain(request(stored.measurement), stored.recommendation).is_measured


@pytest.mark.parametrize("limit", list(Limit))
def test_every_limit_has_a_sentence(limit: Limit) -> None:
    assert limit_sentence(limit).startswith("The ")
    assert limit_sentence(limit).endswith(".")
    assert limit_word(limit) == str(limit.name).lower().replace("_", " ")


@pytest.mark.parametrize("outcome", [value for value in policy_pb2.Outcome.values() if value])
def test_every_outcome_has_a_sentence(outcome: int) -> None:
    assert outcome_sentence(outcome).startswith("The ")
    assert outcome_sentence(outcome).endswith(".")


def test_an_outcome_of_a_newer_service_is_shown_as_its_number() -> None:
    assert outcome_word(NEWER_OUTCOME) == str(NEWER_OUTCOME)
    assert outcome_sentence(NEWER_OUTCOME) == (
        f"Outcome {NEWER_OUTCOME} is defined by a newer service."
    )
    newer = event()
    newer.recommendation.outcomes[:] = [NEWER_OUTCOME, NEWER_OUTCOME]
    assert MeasurementRow.of(newer).outcomes == ((str(NEWER_OUTCOME), 2),)

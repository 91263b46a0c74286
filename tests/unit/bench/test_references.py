"""The study of references: distances, and which recordings each reference is made of."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from typer.testing import CliRunner

from advisor.policy import Profile
from benchmarks.__main__ import app
from benchmarks.practice import running
from benchmarks.practice.training import Trained, Training
from benchmarks.report.tables import references as references_table
from benchmarks.studies.references import SMOOTHING, distance
from fslr.advisor.v1 import policy_pb2, profile_pb2
from tests.building import content_message, profile_of

STEPS = list(range(0, 1000, 25))


def recording(level: float, *, spike: float = 1.0) -> Profile:
    rates = np.full((len(STEPS), 1), level)
    rates[20] *= spike
    return profile_of(["a"], rates.tolist(), STEPS)


def test_the_distance_is_the_mean_difference_of_logarithms() -> None:
    one = recording(1.0)
    assert distance(one, one, smoothing=0.0) == 0
    assert distance(one, recording(np.e), smoothing=0.0) == pytest.approx(1.0)
    late = len([step for step in STEPS if step >= 0.2 * 976])
    spiked = recording(1.0, spike=np.e**4)
    assert distance(spiked, one, smoothing=0.0) == pytest.approx(4 / late)


def test_only_the_reference_is_smoothed() -> None:
    spiked, one = recording(1.0, spike=50.0), recording(1.0)
    assert distance(spiked, one, smoothing=SMOOTHING) == pytest.approx(0.0, abs=1e-6)
    assert distance(one, spiked, smoothing=SMOOTHING) == pytest.approx(
        distance(spiked, one, smoothing=0.0)
    )


def simulated(training: Training) -> Trained:
    """Return a recording with rates of 1, 2 and 4 by seed, and losses that tell the advice."""
    if training.is_recorded:
        content = content_message(steps=STEPS, rate=2.0**training.seed)
        return Trained(2.0, profile=content.SerializeToString())
    if training.advice is None:
        return Trained(2.0 + abs(training.octave + 6))
    content = profile_pb2.ProfileContent.FromString(training.advice.profile)
    policy = policy_pb2.Policy.FromString(training.advice.policy)
    assert training.octave == -6
    smoothed = bool(policy.reference_smoothing)
    return Trained(content.points[0].unit_rates[0] + 100 * smoothed + 1000 * training.seed)


def test_references_are_made_of_the_other_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "run_training", simulated)
    monkeypatch.setattr(running, "process_pool", ThreadPoolExecutor)
    result = CliRunner().invoke(app, ["references", "--rows", "gpt2-tied", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    rows = figures["references"]
    assert [(row["recordings"], row["smoothing"]) for row in rows] == [
        *((1, 0), (1, SMOOTHING), (2, 0), (2, SMOOTHING))
    ]
    one, smoothed, merged, _both = rows
    assert one["loss"] == pytest.approx((2 + 1004 + 2001) / 3)
    assert smoothed["worst"] == pytest.approx(2101)
    assert merged["loss"] == pytest.approx((8**0.5 + 1002 + 2000 + 2**0.5) / 3, abs=0.01)
    logs = np.log(2) * np.array([1, 1, 2])
    assert one["distance"] == pytest.approx(logs.mean(), abs=1e-6)
    assert "| gpt2-tied | 2 merged, smoothed |" in references_table(figures)

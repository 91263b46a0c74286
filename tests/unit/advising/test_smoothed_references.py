"""Runs whose policy smooths the reference."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from advisor.advising.advice import Advice
from advisor.advising.opening import Opening
from advisor.advising.resolved_profile import LoadedProfile, ResolvedProfile
from advisor.policy import Layout, Measurement, Policy, PriorRule
from advisor.registry.profiles import ProfileContent, ProfileHeader, VersionInfo
from advisor.registry.resource_names import ProfileReference

NAMES = ("a.weight", "b.weight")
STEPS = np.arange(0, 1000, 25, dtype=np.int64)
REFERENCE = ProfileReference.parse("profile", "projects/p/profiles/gpt@1")


def spiked_profile() -> LoadedProfile:
    rates = np.ones((len(STEPS), 2), dtype=np.float32)
    rates[20] = 50.0
    header = ProfileHeader(Layout.of_names(NAMES), base_learning_rate=0.01, total_steps=1000)
    content = ProfileContent(header, STEPS, rates, np.zeros_like(rates))
    return LoadedProfile.of(
        VersionInfo(REFERENCE.name, 1, "0" * 64, datetime.fromtimestamp(0, UTC)), content
    )


def advice(loaded: LoadedProfile, smoothing: float) -> Advice:
    policy = Policy(prior=PriorRule.NONE, reference_smoothing=smoothing)
    opening = Opening(REFERENCE, Layout.of_names(NAMES), policy=policy)
    return Advice(ResolvedProfile(loaded), opening)


def measurement(step: int) -> Measurement:
    return Measurement(step, np.ones(2), np.zeros(2), np.ones(2))


def test_a_spike_of_the_profile_moves_multipliers_only_without_smoothing() -> None:
    loaded = spiked_profile()
    recorded = advice(loaded, 0.0).recommend(measurement(500))
    smoothed = advice(loaded, 0.5).recommend(measurement(500))
    assert recorded.references == pytest.approx([50.0, 50.0])
    assert smoothed.references == pytest.approx([1.0, 1.0], rel=1e-6)
    assert smoothed.multipliers == pytest.approx([1.0, 1.0], rel=1e-6)


def test_runs_are_answered_together_only_if_they_smooth_alike() -> None:
    loaded = spiked_profile()
    first = advice(loaded, 0.5)
    assert loaded.smoothed(0.5) is loaded.smoothed(0.5)
    assert first.plan[0] == advice(loaded, 0.5).plan[0]
    assert first.plan[0] != advice(loaded, 0.25).plan[0]
    assert first.plan[0] != advice(loaded, 0.0).plan[0]

"""The messages of the load: profiles, openings of runs, and measurements."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from advisor.policy import Group, Layout
from advisor.registry.profiles import ProfileContent, ProfileHeader, Provenance
from advisor.wire import content_to_proto
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, profile_pb2

PROJECT = "bench"
PROFILE = f"projects/{PROJECT}/profiles/load"
_BASE_LEARNING_RATE = 0.01
_KINDS = 10  # tensors per block, as in a transformer
_POINTS = 40
_INTERVAL_STEPS = 25
_DISTINCT = 8  # measurements of a run, sent repeatedly
_PROVENANCE = Provenance(
    model="benchmark",
    optimizer="Adam",
    batch_size=32,
    loss_name="cross-entropy",
    dataset="none",
    commit="none",
    author="the benchmark",
    width=1,
    depth=1,
    record_time=datetime(2026, 1, 1, tzinfo=UTC),
)


def profile_name(groups: int) -> str:
    """Return the name of the profile for runs with this number of groups."""
    return f"{PROFILE}-{groups}"


def profile(groups: int, *, seed: int = 0) -> profile_pb2.ProfileContent:
    """Return the profile of a base model that is half as deep as a run of ``groups`` groups."""
    rng = np.random.default_rng(seed)
    layout = Layout.of(_groups(max(groups // 2, min(_KINDS, groups))))
    header = ProfileHeader(
        layout, _BASE_LEARNING_RATE, _POINTS * _INTERVAL_STEPS, provenance=_PROVENANCE
    )
    shape = (_POINTS, len(layout))
    rates = np.exp(rng.normal(-2, 2, shape[1]) + rng.normal(0, 0.1, shape)).astype(np.float32)
    errors = np.abs(rng.normal(0.1, 0.03, shape)).astype(np.float32)
    steps = np.arange(_POINTS, dtype=np.int64) * _INTERVAL_STEPS
    return content_to_proto(ProfileContent(header, steps, rates, errors))


def opening(run: str, groups: int) -> pb.RunOpening:
    """Return the opening of a run whose model is twice as deep as that of its profile.

    Args:
        run: Identifier of the run; empty to store nothing of it.
        groups: Number of groups of the model.
    """
    return pb.RunOpening(
        run=f"projects/{PROJECT}/runs/{run}" if run else "",
        profile=profile_name(groups),
        layout=layout_pb2.Layout(
            groups=[layout_pb2.Group(name=group.name) for group in _groups(groups)]
        ),
        total_steps=_POINTS * _INTERVAL_STEPS,
        optimizer="Adam",
        base_learning_rate=_BASE_LEARNING_RATE,
        batch_size=32,
        loss_name="cross-entropy",
    )


def measurements(groups: int) -> list[pb.Measurement]:
    """Return measurements as a training job sends them, with every field set."""
    rng = np.random.default_rng(1)
    return [
        pb.Measurement(
            # Between the points of the profile, so that the reference is interpolated.
            step=i * _INTERVAL_STEPS + 7,
            unit_rates=np.exp(rng.normal(-2, 2, groups)),
            relative_errors=np.abs(rng.normal(0.1, 0.03, groups)),
            multipliers=np.exp(rng.normal(0, 1, groups)),
            learning_rates=np.full(groups, _BASE_LEARNING_RATE),
            interval_steps=_INTERVAL_STEPS,
            probes=4,
            examples=32,
            loss=2.5,
            total_rate=1.0,
            shares=rng.dirichlet(np.ones(groups)),
            linearity_error=0.1,
            advised=[True] * groups,
        )
        for i in range(1, _DISTINCT + 1)
    ]


def recommend_request(run: str, groups: int) -> pb.RecommendLRRequest:
    """Return the request of a unary call, with opening and measurement."""
    return pb.RecommendLRRequest(opening=opening(run, groups), measurement=measurements(groups)[0])


def _groups(count: int) -> list[Group]:
    kinds = min(_KINDS, count)
    return [Group(f"blocks.{i // kinds}.kind{i % kinds}.weight") for i in range(count)]

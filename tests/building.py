"""Small profiles, layouts and measurements for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from advisor.policy import Layout, Policy, Profile
from fslr import Provenance
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_pb2

NAMES = ("embed.weight", "blocks.0.up.weight", "blocks.1.up.weight", "head.weight")


PROVENANCE = profile_pb2.Provenance(
    model="toy",
    width=8,
    depth=2,
    optimizer="Adam",
    batch_size=4,
    dataset="numbers",
    commit="0123abc",
    author="a test",
    record_time=Timestamp(seconds=1_700_000_000),
)
COMPLETE_PROVENANCE = Provenance(
    "toy", width=8, depth=2, dataset="numbers", batch_size=4, commit="0123abc", author="a test"
)
"""For recorders: as ``PROVENANCE``, without the optimizer and the time."""


def layout_message(names: Sequence[str] = NAMES) -> layout_pb2.Layout:
    return layout_pb2.Layout(groups=[layout_pb2.Group(name=name) for name in names])


def describe_tensors(layout: layout_pb2.Layout, *, width: int, rms: float = 0.02) -> None:
    """Give each group of a layout a square matrix of a width, all with the same initial RMS."""
    for group in layout.groups:
        group.shape[:] = [width, width]
        group.parameter_count = width * width
        group.fan_in = group.fan_out = width
        group.kind = layout_pb2.GROUP_KIND_HIDDEN
        group.initial_rms = rms


def content_message(
    names: Sequence[str] = NAMES,
    *,
    steps: Sequence[int] = (0, 10, 20),
    rate: float = 1.0,
    policy: policy_pb2.Policy | None = None,
    labels: dict[str, str] | None = None,
    docs: str = "",
) -> profile_pb2.ProfileContent:
    """Return a profile with unit rates ``rate * (1 + group index)`` at every step."""
    return profile_pb2.ProfileContent(
        layout=layout_message(names),
        points=[
            profile_pb2.ProfilePoint(
                step=step, unit_rates=[rate * (1 + i) for i in range(len(names))]
            )
            for step in steps
        ],
        base_learning_rate=0.01,
        policy=policy,
        labels=labels,
        docs=docs,
        provenance=PROVENANCE,
    )


def opening_message(
    profile: str, names: Sequence[str] = NAMES, *, run: str = "", total_steps: int = 0
) -> pb.RunOpening:
    return pb.RunOpening(
        profile=profile, layout=layout_message(names), run=run, total_steps=total_steps
    )


def profile_of(
    names: Sequence[str],
    rates: Sequence[Sequence[float]],
    steps: Sequence[int] | None = None,
    policy: Policy | None = None,
) -> Profile:
    unit_rates = np.array(rates, dtype=np.float32)
    at = np.array(steps if steps is not None else range(len(rates)), dtype=np.int64)
    return Profile(
        layout=Layout.of_names(names),
        steps=at,
        unit_rates=unit_rates,
        relative_errors=np.zeros_like(unit_rates),
        base_learning_rate=0.01,
        total_steps=int(at[-1]) + 1,
        policy=policy or Policy(),
    )

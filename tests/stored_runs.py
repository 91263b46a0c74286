"""Runs with their history as the service stores them, answered in process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from advisor.local.in_process import InProcessAdvisor
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_pb2, run_service_pb2
from tests.building import content_message, describe_tensors, opening_message

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def block_names(blocks: int) -> list[str]:
    """Return the names of a small transformer's groups."""
    inner = [f"blocks.{i}.{part}.weight" for i in range(blocks) for part in ("attn", "mlp")]
    return ["embed.weight", *inner, "head.weight"]


def measurement(
    step: int, groups: int, interval_steps: int, *, rate: float = 2.0
) -> pb.Measurement:
    """Return a measurement whose numbers change slowly with the step."""
    shares = np.arange(1, groups + 1) / (groups * (groups + 1) / 2)
    return pb.Measurement(
        step=step,
        interval_steps=interval_steps,
        unit_rates=[rate * (1 + i) * (1 + 0.1 * np.sin(step / 40 + i)) for i in range(groups)],
        relative_errors=[0.05 + 0.01 * (i % 3) for i in range(groups)],
        learning_rates=[0.01] * groups,
        multipliers=[1.0] * groups,
        shares=shares.tolist(),
        total_rate=0.2 * float(np.exp(-step / 200)),
        linearity_error=0.04,
        loss=2.0 + float(np.exp(-step / 100)),
        examples=64,
        probes=4,
        measuring_seconds=0.25,
        measuring_overhead=0.008,
    )


def stored_run(
    names: Sequence[str] = tuple(block_names(4)),
    *,
    name: str = "night",
    measurements: int = 12,
    content: profile_pb2.ProfileContent | None = None,
    width: int = 0,
    **opening: Any,
) -> tuple[run_service_pb2.Run, list[run_service_pb2.RunEvent]]:
    """Return a run and its history.

    Args:
        names: The groups' names.
        name: The run's name.
        measurements: Number of measurements, 25 steps apart.
        content: The profile. Default: one with the same groups and a rate of 1.
        width: Width of the model, for square hidden matrices in the layout; 0: it has no shapes.
        **opening: Further fields of the opening.
    """
    opened = opening_message(
        "projects/default/profiles/gpt", names, run=f"projects/default/runs/{name}"
    )
    opened.MergeFrom(pb.RunOpening(**opening))
    if width:
        describe_tensors(opened.layout, width=width)
    session = InProcessAdvisor(content or content_message(names)).open_run(opened)
    events: list[run_service_pb2.RunEvent] = []
    for i in range(measurements):
        measured = measurement(25 * i, len(names), 25 if i else 0)
        if events and not opened.observe_only:
            measured.multipliers[:] = events[-1].recommendation.multipliers
            measured.advised[:] = events[-1].recommendation.recommended
        event = run_service_pb2.RunEvent(
            id=f"{i + 1}-0", measurement=measured, recommendation=session.recommend(measured)
        )
        event.recommendation.profile = "projects/default/profiles/gpt@3"
        event.time.FromDatetime(START + timedelta(minutes=i))
        events.append(event)
    run = run_service_pb2.Run(
        name=f"projects/default/runs/{name}", opening=opened, measurements=measurements
    )
    run.create_time.FromDatetime(START)
    run.update_time.FromDatetime(START + timedelta(minutes=max(measurements - 1, 0)))
    if events:
        newest = events[-1]
        run.last_step = newest.measurement.step
        run.next_measurement_step = newest.recommendation.next_measurement_step
        run.loss, run.learning_rate = newest.measurement.loss, 0.01
    return run, events


def recipe_run(
    *, rate: float = 0.5, measurements: int = 12, **opening: Any
) -> tuple[run_service_pb2.Run, list[run_service_pb2.RunEvent]]:
    """Return a run that follows ``mup-adam``, and is 4 times as wide as its base.

    Args:
        rate: Unit rate of the profile. At 0.5 what is measured agrees with the recipe's 1/4, and at
            4 it is 8 times as large.
        measurements: Number of measurements, 25 steps apart.
        **opening: Further fields of the opening.
    """
    names = block_names(4)
    content = content_message(names, rate=rate)
    describe_tensors(content.layout, width=8)
    return stored_run(
        names,
        name="wide",
        measurements=measurements,
        content=content,
        width=32,
        **{"recipe": "mup-adam", "optimizer": "Adam", **opening},
    )

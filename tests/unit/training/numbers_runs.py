"""Runs and recordings without a framework; every rate is a given number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.local.in_process import InProcessAdvisor
from fslr import Provenance, RunInfo
from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_pb2
from fslr.training.advised_run import AdvisedRun, Answers
from fslr.training.events import Listener, Listeners
from fslr.training.exchange import OneProcess, Ranks
from fslr.training.recording import Recording
from tests.unit.training.numbers_training import NumbersTraining

NAMES = ("embed.weight", "blocks.0.up.weight", "blocks.1.up.weight", "head.weight")
BASE, WIDE = (1.0, 2.0, 2.0, 0.5), (1.0, 8.0, 8.0, 0.25)
EVERY_4 = policy_pb2.Policy(min_interval_steps=4, max_interval_steps=4)
LAYOUT = layout_pb2.Layout(groups=[layout_pb2.Group(name=name) for name in NAMES])


def recording(
    listeners: Sequence[Listener] = (), every: int = 3, dense_start_steps: int = 0
) -> Recording:
    return Recording(
        LAYOUT,
        optimizer="SGD",
        every=every,
        dense_start_steps=dense_start_steps,
        listeners=Listeners(listeners),
    )


def steps_of(kept: Recording) -> list[int]:
    return [point.step for point in kept.profile(Provenance("numbers")).points]


def recorded(steps: int = 30) -> profile_pb2.ProfileContent:
    kept = recording()
    NumbersTraining(BASE).train(kept, steps)
    return kept.profile(Provenance("numbers", commit="", author="a test"))


def advised(
    training: NumbersTraining,
    advisor: Any = None,
    *,
    listeners: Sequence[Listener] = (),
    strict: bool = True,
    observe_only: bool = False,
    policy: policy_pb2.Policy = EVERY_4,
    ranks: Ranks | None = None,
    answers: Answers = "background",
) -> AdvisedRun:
    opening = RunInfo(policy=policy).opening(
        "numbers", LAYOUT, optimizer="SGD", base_learning_rate=0.01, observe_only=observe_only
    )
    return AdvisedRun(
        advisor or InProcessAdvisor(recorded()),
        opening,
        size=training.meter.size,
        ranks=ranks or OneProcess(),
        listeners=Listeners(listeners),
        strict=strict,
        answers=answers,
    )

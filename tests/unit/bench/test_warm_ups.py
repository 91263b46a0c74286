"""Recordings are compared at equal exposure: at equal sums of learning rates."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.wire import content_from_proto
from benchmarks.practice.procedures import schedule_factor
from benchmarks.practice.setups import Procedure
from benchmarks.studies.warm_ups import at_equal_exposure
from tests.building import content_message


def exposure(procedure: Procedure, steps: int) -> float:
    return sum(schedule_factor(procedure, step) for step in range(steps))


@pytest.mark.parametrize(("of_base", "of_run"), [(0.03, 0.3), (0.3, 0.03)])
def test_the_steps_of_a_recording_move_to_those_of_equal_exposure(
    of_base: float, of_run: float
) -> None:
    base, run = Procedure(warm_up=of_base), Procedure(warm_up=of_run)
    message = content_message()
    del message.points[1:]
    message.total_steps = base.steps
    for step in range(25, base.steps, 25):
        message.points.add().CopyFrom(message.points[0])
        message.points[-1].step = step
    content = content_from_proto(message)
    moved = at_equal_exposure(content, base, run)
    assert len(moved.steps) >= 8
    assert moved.steps[-1] < run.steps
    assert len(moved.unit_rates) == len(moved.steps)
    for before, after in zip(content.steps, moved.steps, strict=False):
        assert exposure(run, int(after)) == pytest.approx(exposure(base, int(before)), abs=1.0)
    assert np.all((moved.steps > content.steps[: len(moved.steps)])[1:] == (of_run > of_base))


def test_equal_warm_ups_change_nothing() -> None:
    content = content_from_proto(content_message())
    same = at_equal_exposure(content, Procedure(), Procedure())
    assert same.steps.tolist() == [step for step in content.steps.tolist() if step < 300]

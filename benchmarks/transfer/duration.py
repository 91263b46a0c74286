"""Estimates how long a case takes on this machine, from a few steps of its models."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from benchmarks.training import loss_of, one_thread
from benchmarks.transfer.cases import Case
from benchmarks.transfer.curves import HALF_WINDOW
from benchmarks.transfer.models import build_task
from benchmarks.transfer.settings import Setting

_TIMED_STEPS = 3
# For measuring, extended sweeps and the shared memory bus, from a run of all cases.
_OVERHEAD = 1.3
_OCTAVES = 4  # whole octaves of the sweep of a big model, at least three


def expected_s(case: Case, methods: int, processes: int, *, is_fine: bool) -> float:
    """Return the estimated duration of a case, in seconds.

    Args:
        case: The case.
        methods: Number of methods that are run.
        processes: Number of parallel trainings.
        is_fine: Whether sweeps have finer steps near their optimum.
    """
    # Of the steps near an optimum, three are whole octaves.
    finer = round(2 * HALF_WINDOW / case.finer_octaves) - 2 if is_fine else 0
    base = case.steps_of_base * (len(case.octaves) + finer) * _step_s(case.base)
    big = case.steps * methods * (_OCTAVES + finer) * _step_s(case.big)
    return _OVERHEAD * len(case.seeds) / processes * (base + big)


def _step_s(setting: Setting) -> float:
    if setting.model == "lora_gpt":  # the same size without pretraining
        setting = replace(setting, model="char_gpt_pre", rank=0)
    with one_thread():
        task = build_task(setting)
        batches = torch.Generator().manual_seed(0)
        taken: list[float] = []
        for _ in range(_TIMED_STEPS):
            begun = time.perf_counter()
            loss_of(task.model, *task.draw(batches)).backward()
            taken.append(time.perf_counter() - begun)
    return min(taken)

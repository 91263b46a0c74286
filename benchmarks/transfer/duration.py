"""How long a case will take on this machine, from a few steps of its models."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from benchmarks.training import loss_of
from benchmarks.transfer.cases import Case
from benchmarks.transfer.models import build_task
from benchmarks.transfer.settings import Setting

_TIMED_STEPS = 3
# What measuring, extending sweeps and sharing the memory bus add, as the full table showed.
_OVERHEAD = 1.3


def expected_s(case: Case, processes: int) -> float:
    """Return about how many seconds a case takes.

    Args:
        case: The case.
        processes: Trainings at a time.
    """
    one_each = case.steps * len(case.octaves) * len(case.seeds) / processes
    return _OVERHEAD * one_each * (_step_s(case.base) + 2 * _step_s(case.big))


def _step_s(setting: Setting) -> float:
    if setting.model == "lora_gpt":  # without pretraining it first
        setting = replace(setting, model="char_gpt_pre", rank=0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = build_task(setting)
        batches = torch.Generator().manual_seed(0)
        taken: list[float] = []
        for _ in range(_TIMED_STEPS):
            begun = time.perf_counter()
            loss_of(task.model, *task.draw(batches)).backward()
            taken.append(time.perf_counter() - begun)
    finally:
        torch.set_num_threads(threads)
    return min(taken)

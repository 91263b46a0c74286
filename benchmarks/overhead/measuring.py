"""Trains without measuring, with our procedure and with the paper's, side by side."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.overhead.costs import Cost, Stepping, cost_of, differences_from, stepping_of
from benchmarks.overhead.procedures import FIRST_STEPS, procedures
from benchmarks.overhead.trainings import peak_bytes, start
from benchmarks.workloads import Workload

_PAPER_PART = 0.25  # of the steps; it measures all later ones alike
_CONTROL_PART = 0.25


def measure_overhead(
    workload: Workload,
    steps: int,
    *,
    device: torch.device,
    host: bool = False,
    seed: int = 0,
    report_progress: Callable[[str], None] = lambda _: None,
) -> tuple[int, dict[str, Cost], Stepping]:
    """Train without measuring, with our procedure and with the paper's, side by side.

    Args:
        workload: What to train.
        steps: Number of steps.
        device: Where to train.
        host: Whether our snapshot is kept in the host's memory.
        seed: Seed of weights, data and probes.
        report_progress: Called with what is being done.

    Returns:
        The number of parameters, the costs of ``ours`` and ``paper``, and the difference of two
        plain trainings.

    Raises:
        RuntimeError: A procedure measured nothing.
    """
    attach_by_name = procedures(workload, steps, host=host, seed=seed)
    peaks = {
        name: peak_bytes(workload, attach_by_name[name], device, seed)
        for name in ("plain", "ours", "paper")
    }
    trainings = {
        name: start(workload, attach_by_name[name], device, seed, part)
        for name, part in _parts(steps).items()
    }
    for step in range(steps):
        present = [training for training in trainings.values() if step in training.steps]
        turn = step % len(present)  # the order rotates
        for training in present[turn:] + present[:turn]:
            training.step(workload, device)
        if (step + 1) % 50 == 0:
            report_progress(f"step {step + 1} of {steps}")
    plain = trainings["plain"]
    parameters = sum(p.numel() for p in plain.model.parameters())
    costs: dict[str, Cost] = {}
    for name in ("ours", "paper"):
        training = trainings[name]
        if training.observer is not None:
            training.observer.close()
        extra_memory = (peaks[name] - peaks["plain"]) / (4 * parameters)
        costs[name] = cost_of(training, plain, extra_memory)
    control = trainings["control"]
    differences = differences_from(control.updating_seconds, plain.updating_seconds, control.steps)
    return parameters, costs, stepping_of(differences, sum(plain.seconds), steps)


def _parts(steps: int) -> dict[str, range]:
    """Return the steps in which each training takes part.

    The paper's procedure and the control only take part in some, one after the other.

    Args:
        steps: Number of steps of the others.
    """
    paper = max(FIRST_STEPS + 10, round(_PAPER_PART * steps))
    control = range(min(paper, steps // 2), min(paper, steps // 2) + round(_CONTROL_PART * steps))
    return {
        "plain": range(steps),
        "ours": range(steps),
        "paper": range(min(paper, steps)),
        "control": control,
    }

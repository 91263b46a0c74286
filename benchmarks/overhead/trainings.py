"""Trainings that advance side by side, each with a clock of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.memory import PeakMemory
from benchmarks.overhead.procedures import Attach
from benchmarks.training import loss_of
from benchmarks.workloads import Workload
from fslr.torch import Attachment, Recorder
from fslr.torch.estimators import RateEstimate
from fslr.training.stopwatch import Stopwatch


class _OwnClock:
    """Tells the time that a training has had, without that of the trainings beside it."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._begun: float | None = None

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._seconds + (0.0 if self._begun is None else time.perf_counter() - self._begun)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the time of a block pass."""
        self._begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds, self._begun = self(), None


@dataclass(slots=True)
class Training:
    """One of the trainings that advance side by side."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    observer: Attachment | Recorder | None
    batches: torch.Generator
    clock: _OwnClock
    stopwatch: Stopwatch
    steps: range  # those of all trainings' steps that it takes part in
    seconds: list[float] = field(default_factory=list)
    updating_seconds: list[float] = field(default_factory=list)  # of those, in the optimizer
    estimates: list[RateEstimate | None] = field(default_factory=list)  # of measured steps

    def step(self, workload: Workload, device: torch.device) -> None:
        """Take a step and record its time."""
        inputs, targets = (tensor.to(device) for tensor in workload.draw(self.batches))
        before = self._estimate()
        _wait(device)
        begun = self.clock()
        with self.clock.running():
            loss: Tensor = loss_of(self.model, inputs, targets)
            self.optimizer.zero_grad()
            loss.backward()
            _wait(device)
            updating = self.clock()
            self.optimizer.step()
            _wait(device)
        self.seconds.append(self.clock() - begun)
        self.updating_seconds.append(self.clock() - updating)
        after = self._estimate()
        self.estimates.append(None if after is before else after)

    def _estimate(self) -> RateEstimate | None:
        return None if self.observer is None else self.observer.estimate


def start(
    workload: Workload, procedure: Attach, device: torch.device, seed: int, steps: range = range(3)
) -> Training:
    """Return a training that has not begun, with a procedure attached.

    Args:
        workload: What is trained.
        procedure: Attaches what observes it.
        device: Where it is trained.
        seed: Seed of the weights; batches have the next one.
        steps: The steps of all trainings that it takes part in.
    """
    torch.manual_seed(seed)
    model = workload.build().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=workload.learning_rate)
    batches = torch.Generator().manual_seed(seed + 1)
    clock = _OwnClock()
    # What the trainings beside it take is not time of this training, of which measuring may take
    # a part.
    stopwatch = Stopwatch(clock)
    with mock.patch("fslr.training.cadence.Stopwatch", return_value=stopwatch):
        observer = procedure(model, optimizer)
    return Training(model, optimizer, observer, batches, clock, stopwatch, steps)


def peak_bytes(workload: Workload, procedure: Attach, device: torch.device, seed: int) -> int:
    """Return the peak memory of a few steps, which include the first measurement and its checks.

    Args:
        workload: What is trained.
        procedure: Attaches what observes it.
        device: Where it is trained.
        seed: Seed of the weights.

    Returns:
        Bytes of tensors, beyond those that were there before.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        training = start(workload, procedure, device, seed)
        for _ in training.steps:
            training.step(workload, device)
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak - held
    with PeakMemory() as memory:
        training = start(workload, procedure, device, seed)
        for _ in training.steps:
            training.step(workload, device)
    return int(memory.peak_bytes)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""``python -m benchmarks overhead``: what measuring adds to a training, by two procedures.

All trainings advance side by side, so that each step has a plain step next to it. One of them is a
control: a second plain training, whose difference from the first is the noise of the comparison.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Annotated
from unittest import mock

import numpy as np
import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from advisor.local.in_process import InProcessAdvisor
from benchmarks.memory import PeakMemory
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.training import loss_of
from benchmarks.workloads import Workload, char_gpt
from fslr import RunInfo
from fslr.advisor.v1 import policy_pb2, profile_pb2
from fslr.torch import Attachment, MeasuringOptions, Recorder, attach
from fslr.torch.estimators import RateEstimate
from fslr.training.stopwatch import Stopwatch

_INTERVAL_STEPS = 100
_FIRST_STEPS = 40  # the paper's procedure measures each of these first steps
_PAPER_PART = 0.25  # of the steps; it measures all later ones alike
_CONTROL_PART = 0.25
_RESAMPLES = 2_000  # of the differences, for the interval of their median

_console = Console()

Attach = Callable[[nn.Module, torch.optim.Optimizer], Attachment | Recorder | None]


def paper_procedure(model: nn.Module, optimizer: torch.optim.Optimizer) -> Recorder:
    """Return the paper's procedure: one probe at each of the first 40 steps, then every 100 steps.

    The authors measure the update of the first step with 40 probes, which costs the same.
    """
    return Recorder(
        model,
        optimizer,
        every=lambda step: 1 if step + 1 < _FIRST_STEPS else _INTERVAL_STEPS,
        options=MeasuringOptions(estimator="kronecker", linearity=False, averaging=0.9),
    )


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
class _Training:
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


@dataclass(frozen=True, slots=True)
class Stepping:
    """What a procedure adds to each step, measured or not.

    Only the optimizer's step is compared. In the rest of an unmeasured step one hook notes the call
    of the model, which takes microseconds, and its time varies by more than all that is added.

    Attributes:
        stepping_overhead: The number of steps times the median difference of the optimizer's step
            from the plain training's same step, in unmeasured steps, relative to the time of the
            plain training.
        stepping_ms: The median difference.
        stepping_ms_low: Lower end of the median's 95% interval.
        stepping_ms_high: Upper end.
    """

    stepping_overhead: float
    stepping_ms: float
    stepping_ms_low: float
    stepping_ms_high: float


@dataclass(frozen=True, slots=True)
class Cost(Stepping):
    """What a procedure adds to a training.

    Attributes:
        overhead: Added time, relative to the time of the plain training: what hooks and split
            groups add to each step, and ``measuring_overhead``.
        measuring_overhead: What the measurements add beyond that, in the measured steps.
        counted_overhead: What the client's budget counts as measuring, relative to the same time;
            None for procedures without a budget.
        extra_memory_ratio: Added peak memory of tensors, relative to the bytes of the parameters.
        relative_error: Relative error of a unit rate as reported, mean over groups, and over the
            measurements of the last half of its steps.
        measurements: Number of measurements in all steps.
        step_ratio: Time of a measured step, relative to the plain training's same step; median.
    """

    overhead: float
    measuring_overhead: float
    counted_overhead: float | None
    extra_memory_ratio: float
    relative_error: float
    measurements: int
    step_ratio: float


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reference(workload: Workload, seed: int) -> profile_pb2.ProfileContent:
    """Record one step of the same model as the profile."""
    torch.manual_seed(seed)
    model = workload.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=workload.learning_rate)
    with Recorder(model, optimizer) as recorder:
        inputs, targets = workload.draw(torch.Generator().manual_seed(seed))
        loss_of(model, inputs, targets).backward()
        optimizer.step()
    return recorder.profile(workload.name)


def procedures(workload: Workload, steps: int, *, host: bool, seed: int) -> dict[str, Attach]:
    """Return the function that attaches each procedure, by name.

    Args:
        workload: What is trained.
        steps: Steps of each training.
        host: Whether our snapshot is kept in the host's memory.
        seed: Seed of the profile's weights and data.
    """
    advisor = InProcessAdvisor(_reference(workload, seed))
    # The multipliers hardly change the training.
    policy = policy_pb2.Policy(
        min_interval_steps=_INTERVAL_STEPS,
        max_interval_steps=_INTERVAL_STEPS,
        min_multiplier=0.98,
        max_multiplier=1.02,
    )
    options = MeasuringOptions(snapshot_on_host=host)

    def ours(model: nn.Module, optimizer: torch.optim.Optimizer) -> Attachment:
        return attach(
            model,
            optimizer,
            profile="x",
            advisor=advisor,
            run=RunInfo(policy=policy, total_steps=steps),
            options=options,
        )

    def plain(_model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        """Attach nothing."""

    return {"plain": plain, "ours": ours, "paper": paper_procedure, "control": plain}


def _parts(steps: int) -> dict[str, range]:
    """Return the steps in which each training takes part.

    The paper's procedure and the control only take part in some, one after the other.

    Args:
        steps: Number of steps of the others.
    """
    paper = max(_FIRST_STEPS + 10, round(_PAPER_PART * steps))
    control = range(min(paper, steps // 2), min(paper, steps // 2) + round(_CONTROL_PART * steps))
    return {
        "plain": range(steps),
        "ours": range(steps),
        "paper": range(min(paper, steps)),
        "control": control,
    }


def _start(
    workload: Workload, procedure: Attach, device: torch.device, seed: int, steps: range = range(3)
) -> _Training:
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
    return _Training(model, optimizer, observer, batches, clock, stopwatch, steps)


def _peak_bytes(workload: Workload, procedure: Attach, device: torch.device, seed: int) -> int:
    """Return the peak memory of a few steps, which include the first measurement and its checks."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        training = _start(workload, procedure, device, seed)
        for _ in training.steps:
            training.step(workload, device)
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak - held
    with PeakMemory() as memory:
        training = _start(workload, procedure, device, seed)
        for _ in training.steps:
            training.step(workload, device)
    return int(memory.peak_bytes)


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
        name: _peak_bytes(workload, attach_by_name[name], device, seed)
        for name in ("plain", "ours", "paper")
    }
    trainings = {
        name: _start(workload, attach_by_name[name], device, seed, part)
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
        costs[name] = _cost(training, plain, extra_memory)
    control = trainings["control"]
    differences = _differences(control.updating_seconds, plain.updating_seconds, control.steps)
    return parameters, costs, _stepping(differences, sum(plain.seconds), steps)


def _differences(mine: list[float], plain: list[float], steps: range) -> list[float]:
    """Return how much longer each step took than the plain training's same step, in seconds.

    Args:
        mine: Times of the steps that the training takes part in.
        plain: Times of all steps.
        steps: The steps that it takes part in.
    """
    others = plain[steps.start : steps.stop]
    return [one - other for one, other in zip(mine, others, strict=True)]


def _stepping(differences: list[float], plain_seconds: float, steps: int) -> Stepping:
    """Return what is added to each step.

    Args:
        differences: Those of unmeasured steps, in seconds.
        plain_seconds: Time of the plain training.
        steps: Its number of steps.
    """
    resamples = np.random.default_rng(0).choice(differences, (_RESAMPLES, len(differences)))
    low, high = np.quantile(np.median(resamples, axis=1), (0.025, 0.975))
    usual = statistics.median(differences)
    return Stepping(
        stepping_overhead=steps * usual / plain_seconds,
        stepping_ms=1e3 * usual,
        stepping_ms_low=1e3 * float(low),
        stepping_ms_high=1e3 * float(high),
    )


def _cost(training: _Training, plain: _Training, extra_memory_ratio: float) -> Cost:
    """Return what a procedure adds to the whole training, of which it may have taken a part.

    Args:
        training: The training with the procedure.
        plain: The training without one.
        extra_memory_ratio: As in :class:`Cost`.

    Raises:
        RuntimeError: The procedure measured nothing in the last half of its steps.
    """
    found = [(step, each) for step, each in enumerate(training.estimates) if each is not None]
    late = [each for step, each in found if step >= len(training.steps) // 2]
    if not late:
        raise RuntimeError("a procedure measured nothing in the last half of its steps")
    at = {step for step, _ in found}
    differences = _differences(training.seconds, plain.seconds, training.steps)
    updating = _differences(training.updating_seconds, plain.updating_seconds, training.steps)
    unmeasured = [each for step, each in enumerate(updating) if step not in at]
    steps, seconds = len(plain.steps), sum(plain.seconds)
    stepping = _stepping(unmeasured, seconds, steps)
    added = [differences[step] - stepping.stepping_ms / 1e3 for step in at]
    # Those of the steps in which it takes no part are as far apart as the last ones.
    count = len(at) + (steps - len(training.steps)) // _INTERVAL_STEPS
    measuring = count * statistics.fmean(added) / seconds
    counted = training.stopwatch.measuring_seconds / seconds
    return Cost(
        **asdict(stepping),
        overhead=measuring + stepping.stepping_overhead,
        measuring_overhead=measuring,
        counted_overhead=counted if isinstance(training.observer, Attachment) else None,
        extra_memory_ratio=extra_memory_ratio,
        relative_error=statistics.fmean(
            statistics.fmean(estimate.relative_errors) for estimate in late
        ),
        measurements=count,
        step_ratio=statistics.median(training.seconds[step] / plain.seconds[step] for step in at),
    )


def overhead(
    steps: Annotated[
        int, typer.Option(help="Steps of each training.", min=_FIRST_STEPS + 10)
    ] = 600,
    width: Annotated[int, typer.Option(help="Width of the model.", min=16)] = 256,
    examples: Annotated[int, typer.Option(help="Examples per batch.", min=4)] = 64,
    device: Annotated[str, typer.Option(help="Device to train on, such as cuda.")] = "cpu",
    host: Annotated[
        bool, typer.Option("--host", help="Keep our snapshot in the host's memory.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of weights, data and probes.")] = 0,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Compare the cost of measuring by our procedure and by the paper's (about 15 min)."""
    workload = char_gpt(width=width, blocks=4, examples=examples, context=32, learning_rate=2.0**-9)
    report: Callable[[str], None] = (lambda _: None) if as_json else _console.print
    parameters, costs, control = measure_overhead(
        workload, steps, device=torch.device(device), host=host, seed=seed, report_progress=report
    )
    where = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    figures = {name: asdict(cost) for name, cost in costs.items()}
    result = {
        "parameters": parameters,
        "steps": steps,
        "device": where,
        **figures,
        "control": asdict(control),
    }
    emit(result, as_json=as_json, out=out, device=device)
    if as_json:
        return
    _console.print(f"{parameters:,} parameters, {steps} steps, {examples} examples, {where}:")
    for name, cost in costs.items():
        _console.print(
            f"  {name:7}  added time {cost.overhead:+.2%}: by measurements "
            f"{cost.measuring_overhead:+.2%}, in each step {_in_words(cost)}; added memory "
            f"{cost.extra_memory_ratio:.2f} times the parameters, relative error of a rate "
            f"{cost.relative_error:.2f}; {cost.measurements} measurements, a measured step takes "
            f"{cost.step_ratio:.2f} times as long as a plain one"
        )
    _console.print(f"  control  a second plain training, in each step {_in_words(control)}")


def _in_words(stepping: Stepping) -> str:
    return (
        f"{stepping.stepping_overhead:+.2%} ({stepping.stepping_ms:+.2f} ms, 95% interval "
        f"{stepping.stepping_ms_low:+.2f} to {stepping.stepping_ms_high:+.2f})"
    )

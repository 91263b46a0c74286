"""``python -m benchmarks measurements``: what measurements cost on many architectures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor, nn

from benchmarks.architectures import ARCHITECTURES, Architecture
from benchmarks.provenance import AsJson, Out, emit
from fslr.torch import Recorder

_WARMUP_STEPS = 3
_console = Console()


@dataclass(frozen=True, slots=True)
class MeasurementCost:
    """What measurements add to the steps that they measure.

    Attributes:
        groups: Number of groups of the model.
        slow: Number of groups that take a slow route.
        step_s: Median processor time of a training step, in seconds.
        first: Median of the added processor time of a first measurement, with its checks, in
            training steps.
        later: The same of a later measurement.
    """

    groups: int
    slow: int
    step_s: float
    first: float
    later: float


def measurement_cost(architecture: Architecture, rounds: int, *, seed: int = 0) -> MeasurementCost:
    """Measure a training in turns: a first and a later measurement, each next to plain steps.

    Args:
        architecture: What to train.
        rounds: Number of recorders, each with a first and a later measurement, >= 1.
        seed: Seed of weights and data.

    Raises:
        RuntimeError: A step could not be measured.
    """
    torch.manual_seed(seed)
    model = architecture.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs = architecture.inputs()
    targets = torch.randn_like(model(inputs).detach())
    plain: list[float] = []
    first: list[float] = []
    later: list[float] = []
    slow: Sequence[str] = ()
    for _ in range(_WARMUP_STEPS):
        _step_s(model, optimizer, inputs, targets)
    for _ in range(rounds):
        before = _step_s(model, optimizer, inputs, targets)
        with Recorder(model, optimizer, every=2) as recorder:
            measured = _step_s(model, optimizer, inputs, targets)
            between = _step_s(model, optimizer, inputs, targets)
            measured_again = _step_s(model, optimizer, inputs, targets)
            slow = list(recorder.slow_groups)
            if recorder.failures:
                raise RuntimeError("a step could not be measured; the log says why")
        after = _step_s(model, optimizer, inputs, targets)
        plain += [before, between, after]
        first.append(measured / statistics.fmean((before, between)) - 1)
        later.append(measured_again / statistics.fmean((between, after)) - 1)
    return MeasurementCost(
        groups=len(list(model.parameters())),
        slow=len(slow),
        step_s=statistics.median(plain),
        first=statistics.median(first),
        later=statistics.median(later),
    )


def _step_s(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor
) -> float:
    begun = time.process_time()
    optimizer.zero_grad()
    nn.functional.mse_loss(model(inputs), targets).backward()
    optimizer.step()
    return time.process_time() - begun


def measurements(
    rounds: Annotated[int, typer.Option(help="Measurements of each kind.", min=1)] = 7,
    seed: Annotated[int, typer.Option(help="Seed of weights and data.")] = 0,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Time the first and later measurements of many architectures (about 2 min)."""
    costs: dict[str, MeasurementCost] = {}
    for name, architecture in ARCHITECTURES.items():
        costs[name] = measurement_cost(architecture, rounds, seed=seed)
        if not as_json:
            _console.print(f"{name}: {costs[name].first:.1f} and {costs[name].later:.1f} steps")
    figures = {name: asdict(cost) for name, cost in costs.items()}
    emit({"architectures": figures}, as_json=as_json, out=out)
    if as_json:
        return
    columns = ("architecture", "groups", "slow", "step, ms", "first, steps", "later, steps")
    table = Table(*(Column(name, justify="right") for name in columns), box=box.MARKDOWN)
    for name, cost in costs.items():
        table.add_row(
            name,
            str(cost.groups),
            str(cost.slow),
            f"{1e3 * cost.step_s:.1f}",
            f"{cost.first:.1f}",
            f"{cost.later:.1f}",
        )
    _console.print(table)

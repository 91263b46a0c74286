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
from fslr.testing import FakeAdvisor
from fslr.torch import Batch, ModelGroups, Update, attach, exact_unit_rates

_WARMUP_STEPS = 3
_VARIANCE_EXAMPLES = 8
_NO_LIMIT = 1_000.0  # times the training's time
_console = Console()


@dataclass(frozen=True, slots=True)
class MeasurementCost:
    """What measurements add to the steps that they measure.

    Attributes:
        groups: Number of groups of the model.
        slow: Number of groups that take a slow route.
        step_s: Median processor time of a training step, in seconds.
        first: Median of the added processor time of the first measurement of an advised training,
            with its checks and the answer, in training steps.
        later: The same of a later measurement, on all examples.
        variance_between_examples: Variance over the examples of a batch of the exact squared rate
            of one example, relative to the squared mean; median over groups. None: the model does
            not take single examples.
    """

    groups: int
    slow: int
    step_s: float
    first: float
    later: float
    variance_between_examples: float | None


def variance_between_examples(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor
) -> float | None:
    """Return the relative variance of single examples' squared rates for one step; see the field.

    Args:
        model: The model; the step is undone.
        optimizer: Its optimizer, with one learning rate.
        inputs: The batch.
        targets: What the outputs should be.
    """
    groups = ModelGroups(model, optimizer)
    before = [group.parameter.detach().clone() for group in groups]
    _step_s(model, optimizer, inputs, targets)
    updates: list[Tensor] = []
    with torch.no_grad():
        for group, start in zip(groups, before, strict=True):
            updates.append(group.parameter - start)
            group.parameter.copy_(start)
    update = Update(lambda index: updates[index])
    squares: list[list[float]] = []
    for example in inputs.split(1)[:_VARIANCE_EXAMPLES]:
        batch = Batch.from_call((example,), {})
        try:
            rates = exact_unit_rates(model, groups, batch, update)
        except ValueError:  # batch normalization wants more than one
            return None
        squares.append([rate**2 for rate in rates])
    found = [
        statistics.variance(group) / statistics.fmean(group) ** 2
        for group in zip(*squares, strict=True)
        if any(group)
    ]
    median: float = statistics.median(found)
    return median


def measurement_cost(architecture: Architecture, rounds: int, *, seed: int = 0) -> MeasurementCost:
    """Measure a training in turns: a first and a later measurement, each next to plain steps.

    Args:
        architecture: What to train.
        rounds: Number of attachments, each with a first and a later measurement, >= 1.
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
        advisor = FakeAdvisor(interval_steps=2)
        with attach(
            model,
            optimizer,
            profile="x",
            advisor=advisor,
            max_overhead=_NO_LIMIT,
        ) as attachment:
            measured = _step_s(model, optimizer, inputs, targets)
            between = _step_s(model, optimizer, inputs, targets)
            measured_again = _step_s(model, optimizer, inputs, targets)
            slow = list(attachment.slow_groups)
            if attachment.failures or len(advisor.measurements) != 2:
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
        variance_between_examples=variance_between_examples(model, optimizer, inputs, targets),
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
    columns = (
        *("architecture", "groups", "slow", "step, ms", "first, steps", "later, steps"),
        "variance between examples",
    )
    table = Table(*(Column(name, justify="right") for name in columns), box=box.MARKDOWN)
    for name, cost in costs.items():
        table.add_row(
            name,
            str(cost.groups),
            str(cost.slow),
            f"{1e3 * cost.step_s:.1f}",
            f"{cost.first:.1f}",
            f"{cost.later:.1f}",
            "" if (variance := cost.variance_between_examples) is None else f"{variance:.2f}",
        )
    _console.print(table)

"""``python -m benchmarks scaling``: cost against the number of groups and of parameters."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.image_models import ResMLP
from benchmarks.provenance import AsJson, Out, emit
from fslr.torch import Batch, ModelGroups, PerExampleEstimator, Update
from fslr.torch.model.snapshot import Snapshot
from fslr.torch.step_scaler import StepScaler

_ROUNDS = 12
_EXAMPLES = 64

_console = Console()


@dataclass(frozen=True, slots=True)
class MeasuringCost:
    """What a measurement with one probe costs a residual MLP.

    Attributes:
        blocks: Residual blocks.
        width: Channels.
        groups: Number of groups.
        parameters: Number of parameters.
        measurement_ms: Time of a measurement, median.
        step_ratio: Over the time of a training step, median of pairs.
        us_per_group: Microseconds a group.
        ns_per_parameter: Nanoseconds a parameter.
    """

    blocks: int
    width: int
    groups: int
    parameters: int
    measurement_ms: float
    step_ratio: float
    us_per_group: float
    ns_per_parameter: float


@dataclass(frozen=True, slots=True)
class SteppingCost:
    """What a step of AdamW costs with multipliers of its own for each tensor.

    Attributes:
        kind: Implementation of the optimizer.
        groups: Number of tensors, 4096 elements each.
        plain_ms: Time of a step in one group, median.
        split_ms: With scaled learning rates: a group a tensor.
        update_ms: With the update scaled after the step.
    """

    kind: str
    groups: int
    plain_ms: float
    split_ms: float
    update_ms: float


def _seconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def measuring_cost(blocks: int, width: int) -> MeasuringCost:
    """Time measurements and training steps of a residual MLP, in turn."""
    torch.manual_seed(0)
    model = ResMLP(width=width, blocks=blocks)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    groups = ModelGroups(model, optimizer)
    inputs = torch.randn(_EXAMPLES, 64)
    targets = torch.randint(0, 10, (_EXAMPLES,))
    updates = [torch.randn_like(group.parameter) for group in groups]
    batch, update = Batch.of_call((inputs,), {}), Update(lambda index: updates[index])
    estimator = PerExampleEstimator(model, groups)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    pairs = [
        (_seconds(lambda: estimator.estimate(batch, update)), _seconds(step))
        for _ in range(_ROUNDS + 2)
    ][2:]
    parameters = sum(p.numel() for p in model.parameters())
    median = statistics.median(measured for measured, _ in pairs)
    return MeasuringCost(
        blocks,
        width,
        len(groups),
        parameters,
        1e3 * median,
        statistics.median(measured / stepped for measured, stepped in pairs),
        1e6 * median / len(groups),
        1e9 * median / parameters,
    )


def stepping_cost(kind: str, groups: int) -> SteppingCost:
    """Time optimizer steps, plain and with multipliers in both ways, in turn."""
    options: dict[str, Any] = {} if kind == "for-loop" else {kind: True}
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(64, 64)) for _ in range(groups)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, **options)
    scaler = StepScaler(optimizer, parameters)
    multipliers = [0.5 + i / groups for i in range(groups)]

    def split() -> None:
        scaler.scale(multipliers)
        optimizer.step()
        scaler.restore()

    def update() -> None:
        before = Snapshot(parameters)
        optimizer.step()
        before.rescale(multipliers)

    rounds = [
        tuple(_seconds(act) for act in (optimizer.step, split, update)) for _ in range(_ROUNDS + 2)
    ][2:]
    plain, of_split, of_update = (1e3 * statistics.median(t) for t in zip(*rounds, strict=True))
    return SteppingCost(kind, groups, plain, of_split, of_update)


def scaling(
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Show how cost grows with the number of groups and of parameters (about 1 min)."""
    measuring = [
        *(measuring_cost(blocks, 128) for blocks in (8, 16, 32, 64)),
        *(measuring_cost(8, width) for width in (256, 512, 1024)),
    ]
    stepping = [
        stepping_cost(kind, groups)
        for kind in ("for-loop", "foreach", "fused")
        for groups in (50, 200, 800)
    ]
    figures = {
        "measuring": [asdict(cost) for cost in measuring],
        "stepping": [asdict(cost) for cost in stepping],
    }
    emit(figures, as_json=as_json, out=out)
    if as_json:
        return
    table = Table(
        "blocks", "width", "groups", "parameters", "ms", "steps",
        "us/group", "ns/param.",
        title="A measurement of a residual MLP: time, alone and in training steps", box=box.SIMPLE,
    )  # fmt: skip
    for cost in measuring:
        table.add_row(
            str(cost.blocks),
            str(cost.width),
            str(cost.groups),
            f"{cost.parameters:,}",
            f"{cost.measurement_ms:.1f}",
            f"{cost.step_ratio:.2f}",
            f"{cost.us_per_group:.0f}",
            f"{cost.ns_per_parameter:.1f}",
        )
    _console.print(table)
    table = Table(
        "AdamW", "tensors", "one group, ms", "scaled rates, ms", "scaled update, ms",
        title="An optimizer step", box=box.SIMPLE,
    )  # fmt: skip
    for step in stepping:
        table.add_row(
            step.kind,
            str(step.groups),
            f"{step.plain_ms:.2f}",
            f"{step.split_ms:.2f}",
            f"{step.update_ms:.2f}",
        )
    _console.print(table)

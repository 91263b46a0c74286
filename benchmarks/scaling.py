"""``python -m benchmarks scaling``: how costs grow with the number of groups and parameters."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from advisor.policy import Policy
from benchmarks.image_models import ResMLP
from benchmarks.provenance import AsJson, Out, emit
from fslr.torch import Batch, ModelGroups, PerExampleEstimator, Update
from fslr.torch.model.snapshot import Snapshot
from fslr.torch.steps.step_hooks import StepHooks
from fslr.torch.steps.step_scaler import StepScaler

_ROUNDS = 12
_EXAMPLES = 64

_console = Console()


@dataclass(frozen=True, slots=True)
class MeasuringCost:
    """The cost of a measurement of a residual MLP with one probe.

    Attributes:
        blocks: Residual blocks.
        width: Width of the model.
        groups: Number of groups.
        parameters: Number of parameters.
        measurement_ms: Median time of a measurement.
        step_ratio: Time of a measurement, relative to a training step; median of pairs.
        us_per_group: Microseconds per group.
        ns_per_parameter: Nanoseconds per parameter.
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
    """The cost of a step of AdamW with multipliers.

    Attributes:
        kind: Implementation of the optimizer.
        groups: Number of tensors, 4096 elements each.
        plain_ms: Median time of a step with all tensors in one group.
        rounded_ms: Median time with scaled learning rates, of multipliers that are rounded as the
            default policy does.
        rounded_ratio: Its time, relative to that of one group; median of pairs.
        regrouped_ratio: The same of an optimizer whose user made these groups, with nothing
            attached: what the optimizer itself takes for more groups.
        split_ms: Median time with scaled learning rates that all differ, one group per tensor.
        update_ms: Median time with the update scaled after the step.
    """

    kind: str
    groups: int
    plain_ms: float
    rounded_ms: float
    rounded_ratio: float
    regrouped_ratio: float
    split_ms: float
    update_ms: float


class _NoCycle:
    """A step cycle that does nothing, so that only scaling is timed."""

    applied: tuple[float, ...] = ()

    def model_called(self) -> None:
        """Do nothing."""

    def before_step(self, members: Collection[int]) -> None:
        """Do nothing."""

    def after_step(self, members: Collection[int]) -> None:
        """Do nothing."""

    def step_failed(self, error: Exception) -> None:
        """Raise an error of scaling."""
        raise error


def _time_s(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def measuring_cost(blocks: int, width: int) -> MeasuringCost:
    """Time measurements and training steps of a residual MLP, alternating."""
    torch.manual_seed(0)
    model = ResMLP(width=width, blocks=blocks)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    groups = ModelGroups(model, optimizer)
    inputs = torch.randn(_EXAMPLES, 64)
    targets = torch.randint(0, 10, (_EXAMPLES,))
    updates = [torch.randn_like(group.parameter) for group in groups]
    batch, update = Batch.from_call((inputs,), {}), Update(lambda index: updates[index])
    estimator = PerExampleEstimator(model, groups)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    pairs = [
        (_time_s(lambda: estimator.estimate(batch, update)), _time_s(step))
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
    """Time optimizer steps, without multipliers and with both ways of scaling, alternating."""
    options: dict[str, Any] = {} if kind == "for-loop" else {kind: True}
    torch.manual_seed(0)
    plain = torch.optim.AdamW(_with_gradients(groups), lr=1e-4, **options)
    # As in the practice benchmark, where 100 tensors have about 30 different multipliers.
    spread = torch.randn(groups, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    multipliers = (2 ** (spread - 1.5)).tolist()
    few = Policy().multiplier_values_per_octave
    rounded = [2 ** (round(few * math.log2(multiplier)) / few) for multiplier in multipliers]

    by_multiplier: dict[float, list[nn.Parameter]] = {}
    for parameter, multiplier in zip(_with_gradients(groups), rounded, strict=True):
        by_multiplier.setdefault(multiplier, []).append(parameter)
    regrouped = torch.optim.AdamW(
        [{"params": params, "lr": 1e-4 * m} for m, params in by_multiplier.items()], **options
    )

    def scaled(by: Sequence[float]) -> torch.optim.Optimizer:
        # As in a training, the multipliers of a step are those of the step before.
        parameters = _with_gradients(groups)
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, **options)
        scaler = StepScaler(optimizer, parameters)
        StepHooks([optimizer], _NoCycle(), scaler)
        scaler.scale(by)
        return optimizer

    parameters = _with_gradients(groups)
    rescaled = torch.optim.AdamW(parameters, lr=1e-4, **options)
    unscaled = StepScaler(rescaled, parameters)
    StepHooks([rescaled], _NoCycle(), unscaled)

    def update() -> None:
        before = Snapshot(parameters)
        rescaled.step()
        before.rescale(multipliers, unscaled.decays())

    actions = (
        plain.step,
        scaled(rounded).step,
        regrouped.step,
        scaled(multipliers).step,
        update,
    )
    rounds = [tuple(_time_s(action) for action in actions) for _ in range(_ROUNDS + 2)][2:]
    plain_ms, rounded_ms, _, split_ms, update_ms = (
        1e3 * statistics.median(times) for times in zip(*rounds, strict=True)
    )
    rounded_ratio, regrouped_ratio = (
        statistics.median(times[place] / times[0] for times in rounds) for place in (1, 2)
    )
    return SteppingCost(
        kind, groups, plain_ms, rounded_ms, rounded_ratio, regrouped_ratio, split_ms, update_ms
    )


def _with_gradients(count: int) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.randn(64, 64)) for _ in range(count)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return parameters


def scaling(
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Measure how costs grow with the number of groups and parameters (about 1 min)."""
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
        title="Time of a measurement of a residual MLP", box=box.SIMPLE,
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
        "AdamW", "tensors", "one group, ms", "rounded multipliers, ms", "ratio",
        "ratio of the same groups by hand", "multipliers that all differ, ms", "scaled update, ms",
        title="Time of an optimizer step", box=box.SIMPLE,
    )  # fmt: skip
    for step in stepping:
        table.add_row(
            step.kind,
            str(step.groups),
            f"{step.plain_ms:.2f}",
            f"{step.rounded_ms:.2f}",
            f"{step.rounded_ratio:.2f}",
            f"{step.regrouped_ratio:.2f}",
            f"{step.split_ms:.2f}",
            f"{step.update_ms:.2f}",
        )
    _console.print(table)

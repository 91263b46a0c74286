"""``python -m benchmarks estimator``: each estimator against exact rates, on four models."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from benchmarks.provenance import AsJson, Out, emit
from benchmarks.training import loss_of
from benchmarks.workloads import Workload, char_gpt, conv_net, res_mlp
from fslr.torch import (
    ESTIMATORS,
    Batch,
    Estimator,
    ModelGroups,
    Update,
    exact_unit_rates,
)

_WARMUP_STEPS = 100  # optimizer steps before the measured one
_TIMING_ROUNDS = 15
_NEGLIGIBLE = 1e-5  # part of the largest rate; smaller ones are rounding, without a useful ratio
_MANY_PROBES = 4

WORKLOADS: dict[str, Callable[[], Workload]] = {
    "char_gpt": lambda: char_gpt(width=64, blocks=2, examples=20),
    "res_mlp": res_mlp,
    "conv_net": conv_net,
    "char_gpt_3m": lambda: char_gpt(width=256, blocks=4, examples=16, name="char_gpt_3m"),
}

_console = Console()


@dataclass(frozen=True, slots=True)
class EstimatorFigures:
    """How well and how fast an estimator measures a model.

    Attributes:
        rmse: Relative RMSE of a rate from one probe, mean over groups.
        stated_error: Relative error that the measurements report, mean over groups.
        abs_log_bias: ``|log|`` of the ratio between the rate from all probes and the exact rate,
            mean over groups; it includes noise.
        noise: The ``abs_log_bias`` of an unbiased estimator with this ``rmse``.
        worst_bias: Largest relative deviation of a group's rate from all probes from the exact one.
        probes: Probes that a measurement takes for one requested probe: more than one if examples
            see each other. ``rmse`` is the error of such a measurement.
        time_ratio: Time per requested probe, relative to ``kronecker`` with one probe; median of
            paired runs.
        time_ratio_k4: The same with four probes per measurement.
        variance_times_cost: ``rmse^2 * time_ratio``, relative to ``kronecker``.
    """

    rmse: float
    stated_error: float
    abs_log_bias: float
    noise: float
    worst_bias: float
    probes: int
    time_ratio: float
    time_ratio_k4: float
    variance_times_cost: float


@dataclass(frozen=True, slots=True)
class _Step:
    """A trained model, a batch, and the step that Adam takes on it."""

    model: torch.nn.Module
    groups: ModelGroups
    batch: Batch
    update: Update


def _train(workload: Workload, device: torch.device, seed: int) -> _Step:
    """Train for a while and return to the weights before the last step."""
    torch.manual_seed(seed)
    batches = torch.Generator().manual_seed(seed + 1)
    model = workload.build().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=workload.learning_rate)
    groups = ModelGroups(model, optimizer)
    before: list[Tensor] = []
    for step in range(_WARMUP_STEPS + 1):
        inputs, targets = (tensor.to(device) for tensor in workload.draw(batches))
        optimizer.zero_grad()
        loss_of(model, inputs, targets).backward()
        if step == _WARMUP_STEPS:
            before = [group.parameter.detach().clone() for group in groups]
        optimizer.step()
    optimizer.zero_grad()
    updates: list[Tensor] = []
    with torch.no_grad():
        for group, start in zip(groups, before, strict=True):
            updates.append((group.parameter - start) / workload.learning_rate)
            group.parameter.copy_(start)
    return _Step(
        model, groups, Batch.from_call((inputs,), {}), Update(lambda index: updates[index])
    )


def measure_estimators(
    workload: Workload,
    measurements: int,
    *,
    device: torch.device,
    seed: int = 0,
    report_progress: Callable[[str], None] = lambda _: None,
) -> dict[str, EstimatorFigures]:
    """Compare single-probe estimates with exact rates, estimator by estimator.

    Args:
        workload: The model.
        measurements: Number of independent measurements by each estimator.
        device: Where to measure.
        seed: Seed of weights, data and probes.
        report_progress: Called with what is being done.
    """
    measured = _train(workload, device, seed)
    exact = torch.tensor(
        exact_unit_rates(measured.model, measured.groups, measured.batch, measured.update)
    )
    some = exact > _NEGLIGIBLE * exact.max()
    report_progress(
        f"{workload.name}: {len(exact)} groups, of which {int((~some).sum())} with a rate of zero "
        "are left out"
    )
    times = _times(measured, seed)
    cost = times["kronecker", 1]
    accuracy: dict[str, tuple[Tensor, Tensor, Tensor, int]] = {}
    for name, kind in ESTIMATORS.items():
        report_progress(f"{workload.name}: {measurements} measurements by {name}")
        estimator = kind(measured.model, measured.groups, seed=seed)
        estimates = [
            estimator.estimate(measured.batch, measured.update) for _ in range(measurements)
        ]
        rates = torch.tensor([estimate.unit_rates for estimate in estimates])
        errors = torch.tensor([estimate.relative_errors for estimate in estimates])
        # One measurement with all probes, since combining probes is part of the estimator.
        all_probes = kind(measured.model, measured.groups, probes=measurements, seed=seed + 1)
        pooled = torch.tensor(all_probes.estimate(measured.batch, measured.update).unit_rates)
        accuracy[name] = (
            rates[:, some] / exact[some],
            pooled[some] / exact[some],
            errors[:, some],
            estimates[-1].probes,
        )
    figures: dict[str, EstimatorFigures] = {}
    for name, (ratio, pooled, errors, probes) in accuracy.items():
        deviations = (ratio - 1).square().mean(0).sqrt()
        rmse = float(deviations.mean())
        reference = float((accuracy["kronecker"][0] - 1).square().mean(0).sqrt().mean())
        figures[name] = EstimatorFigures(
            rmse=rmse,
            stated_error=float(errors.mean()),
            abs_log_bias=float(pooled.log().abs().mean()),
            # The mean absolute value of a Gaussian is sqrt(2 / pi) times its standard deviation.
            noise=float((2 / torch.pi) ** 0.5 * ratio.std(0).mean() / measurements**0.5),
            worst_bias=float(max(pooled - 1, key=abs)),
            probes=probes,
            time_ratio=times[name, 1] / cost,
            time_ratio_k4=times[name, _MANY_PROBES] / _MANY_PROBES / cost,
            variance_times_cost=rmse**2 * times[name, 1] / (reference**2 * cost),
        )
    return figures


def _times(measured: _Step, seed: int) -> dict[tuple[str, int], float]:
    """Return the median time of a measurement, in seconds, by estimator and number of probes."""
    estimators: dict[tuple[str, int], Estimator] = {
        (name, probes): kind(measured.model, measured.groups, probes=probes, seed=seed)
        for name, kind in ESTIMATORS.items()
        for probes in (1, _MANY_PROBES)
    }
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in estimators}
    for _ in range(_TIMING_ROUNDS + 2):  # the first two rounds choose routes and warm caches
        for key, estimator in estimators.items():  # interleaved, so that noise affects all of them
            begun = time.perf_counter()
            estimator.estimate(measured.batch, measured.update)
            taken[key].append(time.perf_counter() - begun)
    return {key: statistics.median(seconds[2:]) for key, seconds in taken.items()}


def estimator(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help=f"Only this model, of {', '.join(WORKLOADS)}; repeatable."),
    ] = None,
    measurements: Annotated[int, typer.Option(help="Measurements by each estimator.", min=2)] = 200,
    device: Annotated[str, typer.Option(help="Device to measure on, such as cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of weights, data and probes.")] = 0,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Compare the estimates of each estimator from one probe with exact rates (about 8 min)."""
    unknown = sorted(set(models or []) - set(WORKLOADS))
    if unknown:
        raise typer.BadParameter(
            f"there is no model {unknown[0]!r}; use one of {', '.join(WORKLOADS)}"
        )
    report: Callable[[str], None] = (lambda _: None) if as_json else _console.print
    found = {
        name: measure_estimators(
            WORKLOADS[name](),
            measurements,
            device=torch.device(device),
            seed=seed,
            report_progress=report,
        )
        for name in models or WORKLOADS
    }
    where = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    figures = {m: {e: asdict(f) for e, f in each.items()} for m, each in found.items()}
    result = {"models": figures, "measurements": measurements, "device": where}
    emit(result, as_json=as_json, out=out, device=device)
    if as_json:
        return
    for name, each in found.items():
        _console.print(_table(name, each, measurements))
        probes = each["per_example"].probes
        if probes > 1:
            _console.print(
                f"The examples of {name} see each other, so per_example takes {probes} probes for "
                "each one requested."
            )


def _table(name: str, each: dict[str, EstimatorFigures], measurements: int) -> Table:
    table = Table(
        Column("estimator", no_wrap=True), "RMSE", "bias", "noise", "worst",
        "time", "K=4", "var*cost",
        title=f"{name}: {measurements} measurements; bias is the mean |log|; times per probe and "
        "variance times cost are relative to kronecker",
        box=box.SIMPLE,
    )  # fmt: skip
    for key, figures in each.items():
        table.add_row(
            key,
            f"{figures.rmse:.3f}",
            f"{figures.abs_log_bias:.4f}",
            f"{figures.noise:.4f}",
            f"{figures.worst_bias:+.1%}",
            f"{figures.time_ratio:.2f}",
            f"{figures.time_ratio_k4:.2f}",
            f"{figures.variance_times_cost:.3f}",
        )
    return table

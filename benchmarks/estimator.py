"""``python -m benchmarks estimator``: the estimator against exact rates, on the demo's model."""

from __future__ import annotations

import json
import math
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from benchmarks.text import load_corpus
from benchmarks.training import loss_of
from fslr.torch import Batch, ModelGroups, PerExampleEstimator, exact_unit_rates, tensor_output

_WARM_STEPS = 100  # optimizer steps before the measured one: rates of a model that trains
_EXAMPLES = 20
_LEARNING_RATE = 2.0**-8

_console = Console()


@dataclass(frozen=True, slots=True)
class EstimatorFigures:
    """How well single-probe estimates hit the exact rates.

    Attributes:
        width: Channels of the measured model.
        groups: Number of groups.
        measurements: Number of independent single-probe measurements.
        rmse: Relative RMSE of a single-probe rate, mean over groups.
        stated_error: Relative error that the measurements state themselves, mean over groups.
        abs_log_bias: ``|log|`` of RMS estimate over exact rate, mean over groups; includes noise of
            about ``rmse / sqrt(measurements)``.
        worst_bias: The largest relative deviation of a group's RMS estimate from its exact rate.
        step_ratio: Time of one measurement over time of one training step, median of pairs.
    """

    width: int
    groups: int
    measurements: int
    rmse: float
    stated_error: float
    abs_log_bias: float
    worst_bias: float
    step_ratio: float


def measure_estimator(width: int, measurements: int, seed: int = 0) -> EstimatorFigures:
    """Train a character GPT for a while, then measure one step many times over."""
    corpus = load_corpus()
    torch.manual_seed(seed)
    batches = torch.Generator().manual_seed(seed + 1)
    model = CharGPT(CharGPTConfig(len(corpus.vocabulary), width))
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    groups = ModelGroups(model, optimizer)

    def train_step() -> Tensor:
        inputs, targets = corpus.batch(corpus.train, _EXAMPLES, model.config.context, batches)
        optimizer.zero_grad()
        loss_of(model, inputs, targets).backward()
        optimizer.step()
        return inputs

    for _ in range(_WARM_STEPS):
        train_step()
    before = {group.parameter: group.parameter.detach().clone() for group in groups}
    batch = Batch.of_call((train_step(),), {})
    updates: dict[nn.Parameter, Tensor] = {}
    with torch.no_grad():
        for parameter, start in before.items():
            updates[parameter] = (parameter - start) / _LEARNING_RATE
            parameter.copy_(start)
    by_id = {id(parameter): update for parameter, update in updates.items()}
    exact = torch.tensor(exact_unit_rates(model, groups, batch, updates, tensor_output))

    estimator = PerExampleEstimator(model, groups, output=tensor_output, seed=seed)
    estimator.estimate(batch, lambda p: by_id[id(p)])  # finds its route
    rates, errors, ratios = [], [], []
    for _ in range(measurements):
        begun = time.perf_counter()
        estimate = estimator.estimate(batch, lambda p: by_id[id(p)])
        measured = time.perf_counter()
        train_step()
        ratios.append((measured - begun) / (time.perf_counter() - measured))
        with torch.no_grad():
            for parameter, start in before.items():
                parameter.copy_(start)
        rates.append(estimate.unit_rates)
        errors.append(estimate.relative_errors)
    sampled = torch.tensor(rates) / exact
    root_mean_square = sampled.square().mean(0).sqrt()  # of it the square is unbiased
    return EstimatorFigures(
        width=width,
        groups=len(groups),
        measurements=measurements,
        rmse=float((sampled - 1).square().mean(0).sqrt().mean()),
        stated_error=float(torch.tensor(errors).mean()),
        abs_log_bias=float(root_mean_square.log().abs().mean()),
        worst_bias=float(max(root_mean_square - 1, key=abs)),
        step_ratio=statistics.median(ratios),
    )


def estimator(
    width: Annotated[int, typer.Option(help="Channels of the model.", min=16)] = 64,
    measurements: Annotated[int, typer.Option(help="Single-probe measurements.", min=2)] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare single-probe estimates of a character GPT's rates with the exact ones."""
    figures = measure_estimator(width, measurements)
    if as_json:
        typer.echo(json.dumps({"models": {"char_gpt": {"per_example": asdict(figures)}}}, indent=2))
        return
    noise = figures.rmse / math.sqrt(figures.measurements)
    _console.print(
        f"Character GPT, width {figures.width}, {figures.groups} groups, {_EXAMPLES} examples, "
        f"{figures.measurements} single-probe measurements against exact rates:\n"
        f"  relative RMSE of a rate      {figures.rmse:.3f}  (stated: {figures.stated_error:.3f})\n"
        f"  mean |log bias|              {figures.abs_log_bias:.4f}  (noise alone: {noise:.4f})\n"
        f"  worst bias of a group        {figures.worst_bias:+.1%}\n"
        f"  time of a measurement        {figures.step_ratio:.2f} training steps"
    )

"""``python -m benchmarks frameworks``: the same model measured in PyTorch and in JAX."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import typer
from jax import Array
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.cross_framework import cross_framework
from benchmarks.provenance import AsJson, Out, emit
from fslr.jax.estimators import ExactEstimator, PerExampleEstimator, leaf_groups
from fslr.torch import Batch, ModelGroups, Update, exact_unit_rates
from fslr.torch import PerExampleEstimator as TorchEstimator

_BLOCKS = 6
_SIDES = 16  # inputs and outputs of each position
_LEARNING_RATE = 1e-3
_WARMUP_STEPS = 20
_EXAMPLES, _LENGTH, _WIDTH = 16, 16, 64  # of the batch whose rates are compared
_TIMED_SHAPES = ((16, 64), (64, 16), (1024, 1))  # examples and length
_TIMED_WIDTH = 128
_MEASUREMENTS_WITHOUT_COMPILING = 5
_NEGLIGIBLE = 1e-5  # part of the largest rate; smaller ones are rounding
_console = Console()

_Arrays = Mapping[str, NDArray[np.float32]]


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.down(nn.functional.gelu(self.up(self.norm(x)), approximate="tanh"))
        return x + inner


class ResidualMlp(nn.Module):
    """A residual MLP on each position of a sequence.

    Args:
        width: Width of the residual stream.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(_SIDES, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(_BLOCKS))
        self.head = nn.Linear(width, _SIDES)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of the shape of the inputs, [B, T, 16]."""
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)
        return out


def residual_mlp(params: Mapping[str, Any], x: Array) -> Array:
    """Return the outputs of a :class:`ResidualMlp`.

    Args:
        params: Its parameters by their names in PyTorch.
        x: The inputs, [B, T, 16].
    """

    def linear(x: Array, name: str) -> Any:
        return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    x = linear(x, "first")
    for number in range(_BLOCKS):
        block = f"blocks.{number}"
        centered = x - x.mean(-1, keepdims=True)
        normal = centered * jax.lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + 1e-5)
        normal = normal * params[f"{block}.norm.weight"] + params[f"{block}.norm.bias"]
        x = x + linear(jax.nn.gelu(linear(normal, f"{block}.up")), f"{block}.down")
    outputs: Array = linear(x, "head")
    return outputs


@dataclass(frozen=True, slots=True)
class _Step:
    """A trained model before an Adam step, and the step's unit update."""

    model: ResidualMlp
    groups: ModelGroups
    batch: Tensor
    update: Update
    params: _Arrays
    updates: _Arrays


def _trained(width: int, examples: int, length: int) -> _Step:
    model = ResidualMlp(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    groups = ModelGroups(model, optimizer)
    names = [group.name for group in groups]
    before: list[Tensor] = []
    for _ in range(_WARMUP_STEPS):
        inputs = torch.randn(examples, length, _SIDES)
        before = [group.parameter.detach().clone() for group in groups]
        optimizer.zero_grad()
        (model(inputs) - inputs.roll(1, -1).tanh()).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    found: list[Tensor] = []
    with torch.no_grad():
        for group, start in zip(groups, before, strict=True):
            found.append((group.parameter - start) / _LEARNING_RATE)
            group.parameter.copy_(start)
    params = {n: start.numpy() for n, start in zip(names, before, strict=True)}
    updates = {n: update.numpy() for n, update in zip(names, found, strict=True)}
    return _Step(model, groups, inputs, Update(lambda index: found[index]), params, updates)


def _rmse(rates: list[list[float]], exact: NDArray[np.float64]) -> float:
    """Return the relative RMSE of a rate, mean over the groups whose rates are not known."""
    ratios = np.array(rates)[:, exact > _NEGLIGIBLE * exact.max()]
    ratios = ratios / exact[exact > _NEGLIGIBLE * exact.max()]
    errors: NDArray[np.float64] = np.sqrt(np.square(ratios - 1).mean(0))
    return float(errors[errors > _NEGLIGIBLE].mean())


def _compare(measurements: int) -> dict[str, float]:
    """Measure one step in both frameworks."""
    step = _trained(_WIDTH, _EXAMPLES, _LENGTH)
    batch = Batch.from_call((step.batch,), {})
    groups = leaf_groups(step.params)
    order = [[group.name for group in step.groups].index(group.name) for group in groups]
    exact = np.array(exact_unit_rates(step.model, step.groups, batch, step.update))
    arguments = step.params, step.updates, step.batch.numpy()
    measured = ExactEstimator(residual_mlp, groups).measure(*arguments, jax.random.key(0))
    exact_jax = np.array(measured.estimate().unit_rates)
    gap = np.abs(exact_jax / exact[order] - 1).max()
    torch_estimator = TorchEstimator(step.model, step.groups)
    jax_estimator = PerExampleEstimator(residual_mlp, groups)
    of_torch = [
        torch_estimator.estimate(batch, step.update).unit_rates for _ in range(measurements)
    ]
    of_jax = [
        jax_estimator.measure(*arguments, jax.random.key(seed)).estimate().unit_rates
        for seed in range(measurements)
    ]
    pooled = np.sqrt(np.square(of_jax).mean(0)) / exact_jax
    return {
        "torch_jax_rate_gap": float(gap),
        "rmse_torch": _rmse(of_torch, exact),
        "rmse_jax": _rmse(of_jax, exact_jax),
        "abs_log_bias_jax": float(np.abs(np.log(pooled)).mean()),
        "rmse_ratio": _rmse(of_jax, exact_jax) / _rmse(of_torch, exact),
    }


def _recompiles() -> int:
    """Return how often later measurements compile; each has different numbers."""
    step = _trained(_WIDTH, _EXAMPLES, _LENGTH)
    estimator = PerExampleEstimator(residual_mlp, leaf_groups(step.params))
    for seed in range(1 + _MEASUREMENTS_WITHOUT_COMPILING):
        params = {n: (1 + seed / 100) * leaf for n, leaf in step.params.items()}
        inputs = np.random.default_rng(seed).standard_normal(step.batch.shape, np.float32)
        estimator.measure(params, step.updates, inputs, jax.random.key(seed)).estimate()
    return estimator.compilations - 1


def _costs(rounds: int) -> dict[str, float]:
    """Return the time of a measurement with one probe, relative to that of a gradient.

    Both are jitted, and they are timed in turns. The ratio is the median over the rounds.
    """
    found: dict[str, float] = {}
    for examples, length in _TIMED_SHAPES:
        step = _trained(_TIMED_WIDTH, examples, length)
        params, updates = (
            {n: jnp.asarray(leaf) for n, leaf in tree.items()}
            for tree in (step.params, step.updates)
        )
        inputs, key = jnp.asarray(step.batch.numpy()), jax.random.key(0)

        @jax.jit
        def gradient(params: Mapping[str, Array], inputs: Array) -> Any:
            return jax.grad(lambda p: jnp.square(residual_mlp(p, inputs)).mean())(params)

        estimator = PerExampleEstimator(residual_mlp, leaf_groups(params))

        def measure(
            estimator: PerExampleEstimator = estimator,
            arguments: tuple[Any, ...] = (params, updates, inputs, key),
        ) -> Any:
            return estimator.measure(*arguments)

        ratios = []
        for _ in range(rounds + 1):
            measuring = _seconds(measure)
            ratios.append(
                measuring / _seconds(lambda g=gradient, p=params, i=inputs: g(p, i))  # type: ignore[misc]
            )
        found[f"{examples} x {length}"] = statistics.median(ratios[1:])  # the first compiles
    return found


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())  # type: ignore[no-untyped-call]
    return time.perf_counter() - start


def frameworks(
    measurements: Annotated[int, typer.Option(help="Measurements by each estimator.", min=2)] = 100,
    rounds: Annotated[int, typer.Option(help="Paired timings for each shape.", min=3)] = 15,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Measure the same weights, batch and update in PyTorch and in JAX."""
    torch.manual_seed(0)
    costs = _costs(rounds)
    figures: dict[str, Any] = {
        **_compare(measurements),
        "recompiles": _recompiles(),
        "probe_cost_jax": max(costs.values()),
        "probe_costs_jax": costs,
        "measurements": measurements,
        "blocks": _BLOCKS,
        "width": _WIDTH,
        "timed_width": _TIMED_WIDTH,
        "cross_framework": cross_framework(),
    }
    emit(figures, as_json=as_json, out=out)
    if not as_json:
        table = Table("figure", "value")
        for name, value in figures.items():
            table.add_row(name, str(value))
        _console.print(table)

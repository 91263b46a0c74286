"""``python -m benchmarks overhead``: run, print and store the comparison."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.overhead.costs import Stepping
from benchmarks.overhead.measuring import measure_overhead
from benchmarks.overhead.procedures import FIRST_STEPS
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.workloads import char_gpt

_console = Console()


def overhead(
    steps: Annotated[int, typer.Option(help="Steps of each training.", min=FIRST_STEPS + 10)] = 600,
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

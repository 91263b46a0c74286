"""``python -m benchmarks demo``: run the demo, print its results and write them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from advisor.local.server import LocalServer
from benchmarks.demo.experiment import DemoPlan, DemoResult, run_demo
from benchmarks.demo.gpt2 import run_gpt2
from benchmarks.demo.pictures import draw_all
from benchmarks.markdown import number
from benchmarks.practice.battery import process_pool
from benchmarks.provenance import emit
from benchmarks.text import load_corpus
from benchmarks.transfer.bench import PROCESSES

_EXPECTED_GAIN = 0.25  # of validation loss, nats per character

_console = Console()


def demo(
    out: Annotated[Path, typer.Option(help="Folder for pictures and result.json.")] = Path(
        "out/demo"
    ),
    width: Annotated[int, typer.Option(help="Width of the big model.", min=32)] = 256,
    steps: Annotated[int, typer.Option(help="Steps of each training.", min=50)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of weights, data and probes.")] = 0,
) -> None:
    """Tune a learning rate on a small model and transfer it to a big one through the service."""
    plan = DemoPlan(width=width, steps=steps, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    corpus = load_corpus()
    _console.print(
        f"Text: {len(corpus.train):,} characters of the Python standard library for training, "
        f"{len(corpus.validation):,} held out, {len(corpus.vocabulary)} distinct."
    )
    with LocalServer() as server:
        _console.print(f"Advisor: {server.address}, with an embedded Redis.")
        result = run_demo(plan, corpus, server.address, _bar)
    pictures = draw_all(result, plan.width, out)
    gpt2 = _run_gpt2(seed)
    seconds = time.perf_counter() - begun
    _print_result(result, plan)
    _print_gpt2(gpt2)
    file = out / "result.json"
    fields = {**_result_fields(result, plan, seconds), "gpt2": gpt2}
    emit(fields, as_json=False, out=file)
    _console.print(f"Finished in {seconds:.0f} s. Wrote {', '.join(map(str, [file, *pictures]))}")
    gain = result.plain.validation_loss - result.advised.validation_loss
    if gain >= _EXPECTED_GAIN:
        _console.print(f"[bold green]The advised run ends {gain:.2f} nats below the plain one.[/]")
    else:
        _console.print(
            f"[bold red]The advised run ends only {gain:.2f} nats below the plain one; at least "
            f"{_EXPECTED_GAIN} are expected.[/] This run does not show the effect."
        )
        raise typer.Exit(1)


@contextmanager
def _bar(what: str, steps: int) -> Iterator[Callable[[float], None]]:
    columns = (
        TextColumn("{task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.2f}"),
    )
    with Progress(*columns, console=_console) as progress:
        task = progress.add_task(what, total=steps, loss=float("nan"))
        yield lambda loss: progress.update(task, advance=1, loss=loss)


def _run_gpt2(seed: int) -> dict[str, Any]:
    columns = (TextColumn("{task.description:<32}"), TextColumn("{task.completed} trainings"))
    with (
        process_pool(PROCESSES) as pool,
        Progress(*columns, TimeElapsedColumn(), console=_console) as progress,
    ):
        task = progress.add_task("GPT-2's setup", total=None)
        return run_gpt2(seed, pool, PROCESSES, lambda _training: progress.advance(task))


def _multipliers(result: DemoResult) -> list[float]:
    return [m for event in result.advised_events for m in event.recommendation.multipliers]


def _print_result(result: DemoResult, plan: DemoPlan) -> None:
    sweep = ", ".join(
        f"[bold]{learning_rate:.4g}: {loss:.3f}[/]"
        if learning_rate == result.learning_rate
        else f"{learning_rate:.4g}: {loss:.3f}"
        for learning_rate, loss in result.sweep.items()
    )
    _console.print(f"Sweep of the base (learning rate: validation loss): {sweep}")
    _console.print(f"Registered: {result.profile}")
    multipliers = _multipliers(result)
    table = Table("model", "width", "learning rate", "multipliers", "validation loss, nats")
    learning_rate = f"{result.learning_rate:g}"
    base_loss, plain_loss = result.base.validation_loss, result.plain.validation_loss
    table.add_row("base", str(plan.base_width), learning_rate, "", f"{base_loss:.3f}")
    table.add_row("plain", str(plan.width), learning_rate, "1", f"{plain_loss:.3f}")
    best = _best(result.plain_sweep)
    best_loss = result.plain_sweep[best]
    table.add_row("plain, its best", str(plan.width), f"{best:g}", "1", f"{best_loss:.3f}")
    table.add_row(
        "advised",
        str(plan.width),
        learning_rate,
        f"{min(multipliers):.3f} to {max(multipliers):.3f}",
        f"{result.advised.validation_loss:.3f}",
    )
    _console.print(table)


def _best(sweep: dict[float, float]) -> float:
    return min(sweep, key=lambda learning_rate: sweep[learning_rate])


def _print_gpt2(found: dict[str, Any]) -> None:
    table = Table("GPT-2's setup", "width", "learning rate", "multipliers", "validation loss, nats")
    learning_rate, width = f"{found['learning_rate']:g}", str(found["width"])
    best = f"{found['best_plain_learning_rate']:g}"
    multipliers = f"{found['multiplier_min']:.3f} to {found['multiplier_max']:.3f}"
    base_width = str(found["base_width"])
    table.add_row("base", base_width, learning_rate, "", number(found["base_loss"]))
    table.add_row("plain", width, learning_rate, "1", number(found["plain_loss"]))
    table.add_row("plain, its best", width, best, "1", number(found["best_plain_loss"]))
    table.add_row("advised", width, learning_rate, multipliers, number(found["advised_loss"]))
    _console.print(table)


def _result_fields(result: DemoResult, plan: DemoPlan, seconds: float) -> dict[str, Any]:
    multipliers = _multipliers(result)
    return {
        "base_loss": result.base.validation_loss,
        "plain_loss": result.plain.validation_loss,
        "advised_loss": result.advised.validation_loss,
        "gain": result.plain.validation_loss - result.advised.validation_loss,
        "best_plain_loss": result.plain_sweep[_best(result.plain_sweep)],
        "best_plain_learning_rate": _best(result.plain_sweep),
        "seconds": seconds,
        "learning_rate": result.learning_rate,
        "sweep": {f"{learning_rate:g}": loss for learning_rate, loss in result.sweep.items()},
        "plain_sweep": {
            f"{learning_rate:g}": loss for learning_rate, loss in result.plain_sweep.items()
        },
        "multiplier_min": min(multipliers),
        "multiplier_max": max(multipliers),
        "measured_steps": [event.measurement.step for event in result.advised_events],
        "plain_seconds": result.plain.seconds,
        "advised_seconds": result.advised.seconds,
        "base_width": plan.base_width,
        "width": plan.width,
        "blocks": plan.blocks,
        "steps": plan.steps,
        "seed": plan.seed,
    }

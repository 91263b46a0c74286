"""``python -m benchmarks practice``: run setups, plain and advised, and print their losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.markdown import number
from benchmarks.options import Processes, Resume
from benchmarks.practice.battery import Battery, plan_row, process_pool
from benchmarks.practice.figures import Record, record, summary
from benchmarks.practice.running import NAMES, Rows
from benchmarks.practice.setups import SETUPS, Setup
from benchmarks.practice.store import Store
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.transfer.bench import PROCESSES, THREADS
from fslr import ProfileFileError
from fslr.advisor.v1 import policy_pb2
from fslr.profile_files import load_fields, message_from_fields

_SEEDS = 3
_QUICK_SETUPS = 6  # the first ones
_FILE_WIDTH = 150  # characters

_console = Console(stderr=True)


def practice(
    rows: Rows = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each training.", min=1)] = _SEEDS,
    policy: Annotated[
        Path | None,
        typer.Option(help="JSON or YAML file with the rules of advised trainings."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Use one seed, and the most common setups.")
    ] = False,
    resume: Resume = None,
    processes: Processes = PROCESSES,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Train the setups that people use on small and big models, plain and advised."""
    setups = _chosen(rows, is_quick=quick)
    records = _run(
        setups, range(1 if quick else seeds), _read_policy(policy), Store(resume), processes
    )
    figures = {"rows": records, **summary(records), "processes": processes}
    emit(figures, as_json=as_json, out=out, without=("--resume", "--processes"), threads=THREADS)
    if not as_json:
        _print(records)


def _chosen(names: list[str] | None, *, is_quick: bool) -> list[Setup]:
    wanted = names or (NAMES[:_QUICK_SETUPS] if is_quick else NAMES)
    return [setup for setup in SETUPS if setup.name in wanted]


def _read_policy(file: Path | None) -> bytes:
    """Return a policy, serialized; empty without a file.

    Raises:
        BadParameter: The file does not have the rules of a policy.
    """
    if file is None:
        return b""
    try:
        rules = message_from_fields(
            load_fields(file), policy_pb2.Policy(), f"{file} is not a policy"
        )
    except ProfileFileError as error:
        raise typer.BadParameter(str(error)) from error
    return rules.SerializeToString(deterministic=True)


def _run(
    setups: Sequence[Setup], seeds: Sequence[int], policy: bytes, store: Store, processes: int
) -> list[Record]:
    """Return the records of setups, in order, with progress on standard error."""
    columns = (TextColumn("{task.description}"), TimeElapsedColumn(), MofNCompleteColumn())
    found: dict[str, Record] = {}
    with (
        Progress(*columns, BarColumn(), console=_console) as progress,
        process_pool(processes) as pool,
    ):
        rows = progress.add_task("setups", total=len(setups))
        trainings = progress.add_task("trainings", total=None)
        battery = Battery(store, pool, processes, lambda _training: progress.advance(trainings))
        for row in battery.run([plan_row(setup, seeds, policy) for setup in setups]):
            new = found[row.setup.name] = record(row)
            progress.advance(rows)
            _console.print(_line(new), soft_wrap=True)
    return [found[setup.name] for setup in setups]


def _line(new: Record) -> str:
    losses = ", ".join(
        f"{name.replace('_', ' ')} {number(new[name], '.3f')}"
        for name in ("base", "plain_same_lr", "best_plain", "advised")
    )
    harmed = ", harmed" if new["harmed"] else ""
    return f"{new['recipe']}: {losses}{harmed}, {new['seconds']:.0f} s of training"


def _print(records: Sequence[Record]) -> None:
    table = Table(
        "setup", "learning rate", "base", "plain, same learning rate", "best plain", "at",
        "advised", "regret", "worst seed", "multipliers", "harmed",
    )  # fmt: skip
    table.columns[0].no_wrap = True
    for row in records:
        table.add_row(
            row["recipe"],
            f"{row['learning_rate']:.4g}",
            number(row["base"], ".3f"),
            number(row["plain_same_lr"], ".3f"),
            number(row["best_plain"], ".3f"),
            number(row["best_plain_learning_rate"], ".4g"),
            number(row["advised"], ".3f"),
            f"{number(row['regret'], '+.3f')} ± {row['noise']['regret']:.3f}",
            number(row["worst_seed"], "+.3f"),
            f"{row['min_multiplier']:.3g} to {row['max_multiplier']:.3g}",
            "[red]yes[/]" if row["harmed"] else "no",
        )
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)
    figures = summary(records)
    console.print(
        "Losses on held-out text, in nats per character, are means over seeds. Regret: advised "
        "minus best plain, ± 2 standard errors.",
        f"Median regret: {number(figures['median_regret'], '+.3f')} nats; worst: "
        f"{number(figures['worst_regret'], '+.3f')}; harmed: {figures['harmed']} of "
        f"{len(records)}.",
        sep="\n",
    )

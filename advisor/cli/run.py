"""``advisor run``: what training jobs measured, and what was recommended to them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich import box
from rich.table import Column, Table

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Json,
    Project,
    client,
    console,
    date_with_seconds,
    message_dict,
    plain,
    print_json,
    say,
)
from advisor.report.runs import MeasurementRow, RunRow, measured_groups
from advisor.report.words import format_number, format_percent, short_name
from fslr.advisor.v1 import run_service_pb2

app = typer.Typer(help="Look at the training jobs that use the advisor.", no_args_is_help=True)

RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The run's name.", autocompletion=completion.runs),
]
_COLUMNS = (
    "step", "loss", "total rate", "nonlinear", "multipliers: min, median, max", "next", "outcomes",
)  # fmt: skip


@app.command("list")
def list_(
    address: Address = DEFAULT_ADDRESS, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """List the runs, the newest first."""
    with client(address) as advisor:
        runs = list(advisor.list_runs(project=project))
    if as_json:
        print_json([message_dict(run) for run in runs])
        return
    if not runs:
        say(f"no runs in project {plain(project)}")
        return
    table = Table("run", "profile", "last step", "measurements", "lost", "started", "last measured")
    for row in map(RunRow.of, runs):
        table.add_row(
            plain(row.run),
            plain(row.profile),
            str(row.last_step),
            str(row.measurements),
            str(row.lost_measurements),
            date_with_seconds(row.create_time),
            date_with_seconds(row.update_time),
        )
    console.print(table)


@app.command()
def show(
    run: RunArgument,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show a run's measurements, and each group in the last one."""
    with client(address) as advisor:
        summary = advisor.get_run(run, project=project)
        events = list(advisor.get_run_history(run, project=project))
    if as_json:
        print_json({"run": message_dict(summary), "events": [message_dict(e) for e in events]})
        return
    say(
        f"[bold]{plain(summary.name)}[/]  profile {plain(short_name(summary.opening.profile))}, "
        f"{summary.measurements} measurements, {summary.lost_measurements} lost"
    )
    history = Table(*_COLUMNS, box=box.SIMPLE)
    for event in events:
        history.add_row(*_cells(MeasurementRow.of(event)))
    console.print(history)
    if events:
        console.print(_groups_table(summary, events[-1]))


@app.command()
def watch(
    run: RunArgument,
    after_id: Annotated[str, typer.Option(help="Only events after the event with this id.")] = "",
    count: Annotated[
        int, typer.Option(min=0, help="Stop after this many events; 0: never stop.")
    ] = 0,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Print a run's measurements as they arrive, until Ctrl-C."""
    with client(address) as advisor, contextlib.suppress(KeyboardInterrupt):
        events = advisor.watch_run(run, after_id=after_id, project=project)
        if not as_json:
            typer.echo(_line(_COLUMNS))
        for event in _limited(events, count):
            typer.echo(
                json.dumps(message_dict(event))
                if as_json
                else _line(_cells(MeasurementRow.of(event)))
            )


def _limited(
    events: Iterator[run_service_pb2.RunEvent], count: int
) -> Iterator[run_service_pb2.RunEvent]:
    for i, event in enumerate(events, start=1):
        yield event
        if i == count:
            return


def _cells(row: MeasurementRow) -> tuple[str, ...]:
    multipliers = (row.min_multiplier, row.median_multiplier, row.max_multiplier)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in row.outcomes)
    return (
        str(row.step),
        "" if row.loss is None else format_number(row.loss),
        "" if row.total_rate is None else format_number(row.total_rate),
        "" if row.linearity_error is None else format_percent(row.linearity_error),
        ", ".join(map(format_number, multipliers)),
        str(row.next_step),
        outcomes + (" (stale)" if row.is_stale else ""),
    )


def _line(cells: Sequence[str]) -> str:
    """Return the cells as a line of columns, each as wide as its heading."""
    widths = [max(len(column), 8) for column in _COLUMNS[:-1]]
    padded = [cell.rjust(width) for cell, width in zip(cells[:-1], widths, strict=True)]
    return "  ".join([*padded, cells[-1]])


def _groups_table(run: run_service_pb2.Run, event: run_service_pb2.RunEvent) -> Table:
    profile = short_name(event.recommendation.profile)
    table = Table(
        Column("group", overflow="fold"), "measured", "error", "share", "reference", "multiplier",
        "outcome",
        title=f"step {event.measurement.step}, compared with {plain(profile)}", box=box.SIMPLE,
        padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for row in measured_groups(run, event):
        table.add_row(
            plain(row.group),
            format_number(row.unit_rate),
            format_percent(row.relative_error),
            "" if row.share is None else format_percent(row.share, digits=1),
            format_number(row.reference_unit_rate),
            format_number(row.multiplier),
            row.outcome,
        )
    return table

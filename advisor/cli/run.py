"""``advisor run``: what training jobs measured, and what was recommended to them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
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
    Yes,
    client,
    confirm,
    date_with_seconds,
    fail,
    message_dict,
    plain,
    print_json,
    say,
    warn,
)
from advisor.cli.tables import print_table
from advisor.report.runs import (
    MeasurementRow,
    RunRow,
    has_finished,
    measured_groups,
    run_state,
)
from advisor.report.words import format_number, format_percent, short_name
from fslr import AdvisorClient, RunNotFoundError
from fslr.advisor.v1 import run_service_pb2

app = typer.Typer(help="Look at the training jobs that use the advisor.", no_args_is_help=True)

RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The run's name.", autocompletion=completion.runs),
]
_EVENT_ID = re.compile(r"([0-9]{1,18}-[0-9]{1,18})?")
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
    table = Table(
        *("run", "state", "step", "loss", "learning rate", "times measured", "lost", "profile"),
        "last measured",
        box=box.SIMPLE,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    now = datetime.now(UTC)
    for row in (RunRow.of(run, now) for run in runs):
        table.add_row(
            plain(row.run),
            row.state,
            str(row.last_step),
            "" if row.loss is None else format_number(row.loss),
            "" if row.learning_rate is None else format_number(row.learning_rate),
            str(row.measurements),
            str(row.lost_measurements),
            plain(row.profile),
            date_with_seconds(row.update_time),
        )
    print_table(table)


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
        f"{summary.measurements} measurements, {summary.lost_measurements} lost, "
        f"{run_state(summary, datetime.now(UTC))}"
    )
    if summary.HasField("concurrent_time"):
        time = date_with_seconds(summary.concurrent_time.ToDatetime(UTC))
        warn(
            f"two jobs reported measurements to this run, last at {time} UTC: its history mixes "
            "two trainings; give each job its own run name, or stop one of them"
        )
    history = Table(*_COLUMNS, box=box.SIMPLE)
    for event in events:
        history.add_row(*_cells(MeasurementRow.of(event)))
    print_table(history)
    if events:
        print_table(_groups_table(summary, events[-1]))


@app.command()
def watch(
    run: RunArgument,
    after_id: Annotated[str, typer.Option(help="Only events after the event with this id.")] = "",
    count: Annotated[
        int, typer.Option(min=0, help="Stop after this many events; 0: no limit.")
    ] = 0,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Wait for a run that has not started, is silent, has ended or finished."
        ),
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Print a run's measurements as they arrive, until it has finished or ended, or Ctrl-C.

    A run has finished if its job said how many steps it takes, and no measurement is left. It has
    ended if its job closed the attachment. A run is silent if nothing has arrived for long. Of a
    run that is not training, only what is stored is printed.
    """
    if not _EVENT_ID.fullmatch(after_id):
        fail(f"--after-id {after_id!r} is not the id of an event; `--json` prints the ids")
    with client(address) as advisor, contextlib.suppress(KeyboardInterrupt):
        events, summary = _watched(advisor, run, after_id, project, wait=wait)
        if not as_json:
            typer.echo(_line(_COLUMNS))
        for event in _limited(events, count):
            typer.echo(
                json.dumps(message_dict(event))
                if as_json
                else _line(_cells(MeasurementRow.of(event)))
            )
            next_step = event.recommendation.next_measurement_step
            if summary is not None and has_finished(summary, next_step):
                return


def _watched(
    advisor: AdvisorClient, run: str, after_id: str, project: str, *, wait: bool
) -> tuple[Iterator[run_service_pb2.RunEvent], run_service_pb2.Run | None]:
    """Return the events to print, and the run if the command ends when the run has finished."""
    if wait:
        return advisor.watch_run(run, after_id=after_id, project=project), None
    try:
        summary = advisor.get_run(run, project=project)
    except RunNotFoundError as error:
        fail(f"{error}; --wait waits for it to start")
    state = run_state(summary, datetime.now(UTC))
    if state == "silent":
        last = date_with_seconds(summary.update_time.ToDatetime(UTC))
        warn(f"nothing has arrived since {last} UTC; --wait goes on waiting")
    if state in {"finished", "ended", "silent"}:
        stored = list(advisor.get_run_history(run, project=project))
        return (event for event in stored if _is_after(event.id, after_id)), None
    return advisor.watch_run(run, after_id=after_id, until_end=True, project=project), summary


def _is_after(event_id: str, other: str) -> bool:
    """Return whether an event's id comes after another one's; empty: before all."""
    return not other or [int(p) for p in event_id.split("-")] > [int(p) for p in other.split("-")]


@app.command()
def delete(
    run: RunArgument,
    yes: Yes = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Delete a run and its history. A run that still trains appears again."""
    with client(address) as advisor:
        summary = advisor.get_run(run, project=project)
        state = run_state(summary, datetime.now(UTC))
        confirm(f"Delete run {run} ({summary.measurements} measurements, {state})?", yes=yes)
        advisor.delete_run(run, project=project)
    if as_json:
        print_json({"run": run, "deleted": True})
        return
    say(f"deleted [bold]{plain(run)}[/]")


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

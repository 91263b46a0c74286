"""``advisor run``: what training jobs measured and were told."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections import Counter
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
    enum_word,
    message_dict,
    number,
    plain,
    print_json,
    say,
    short_name,
)
from fslr.advisor.v1 import policy_pb2, run_service_pb2

app = typer.Typer(
    help="Look at the training jobs that talked to the advisor.", no_args_is_help=True
)

RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The run's name.", autocompletion=completion.runs),
]
_COLUMNS = (
    "step", "loss", "total rate", "off linear", "multipliers: least, median, most", "next",
    "outcomes",
)  # fmt: skip


@app.command("list")
def list_(
    address: Address = DEFAULT_ADDRESS, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """List the runs, the latest begun first."""
    with client(address) as advisor:
        runs = list(advisor.list_runs(project=project))
    if as_json:
        print_json([message_dict(run) for run in runs])
        return
    if not runs:
        say(f"no runs in project {plain(project)}")
        return
    table = Table("run", "profile", "last step", "measurements", "lost", "begun", "last heard of")
    for run in runs:
        table.add_row(
            plain(short_name(run.name)),
            plain(short_name(run.opening.profile)),
            str(run.last_step),
            str(run.measurements),
            str(run.lost_measurements),
            run.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S"),
            run.update_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S"),
        )
    console.print(table)


@app.command()
def show(
    run: RunArgument,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show a run's history and the groups of its last measurement."""
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
        history.add_row(*_history_row(event))
    console.print(history)
    if events:
        console.print(_groups_table(summary, events[-1]))


@app.command()
def watch(
    run: RunArgument,
    after_id: Annotated[str, typer.Option(help="Only events after the one with this id.")] = "",
    count: Annotated[int, typer.Option(min=0, help="End after so many events; 0: never.")] = 0,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Print a run's measurements as they come; Ctrl-C ends it."""
    with client(address) as advisor, contextlib.suppress(KeyboardInterrupt):
        events = advisor.watch_run(run, after_id=after_id, project=project)
        if not as_json:
            typer.echo(_line(_COLUMNS))
        for event in _limited(events, count):
            typer.echo(json.dumps(message_dict(event)) if as_json else _line(_history_row(event)))


def _limited(
    events: Iterator[run_service_pb2.RunEvent], count: int
) -> Iterator[run_service_pb2.RunEvent]:
    for i, event in enumerate(events, start=1):
        yield event
        if i == count:
            return


def _history_row(event: run_service_pb2.RunEvent) -> tuple[str, ...]:
    measurement, answer = event.measurement, event.recommendation
    outcomes = Counter(enum_word(policy_pb2.Outcome, outcome) for outcome in answer.outcomes)
    return (
        str(measurement.step),
        number(measurement.loss) if measurement.HasField("loss") else "",
        number(measurement.total_rate) if measurement.HasField("total_rate") else "",
        f"{measurement.linearity_error:.0%}" if measurement.HasField("linearity_error") else "",
        ", ".join(
            number(value)
            for value in (
                min(answer.multipliers),
                statistics.median(answer.multipliers),
                max(answer.multipliers),
            )
        ),
        str(answer.next_measurement_step),
        ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        + (" (stale)" if answer.stale else ""),
    )


def _line(cells: Sequence[str]) -> str:
    """Return cells as a line of columns as wide as their headings, the last one open."""
    widths = [max(len(column), 8) for column in _COLUMNS[:-1]]
    padded = [cell.rjust(width) for cell, width in zip(cells[:-1], widths, strict=True)]
    return "  ".join([*padded, cells[-1]])


def _groups_table(run: run_service_pb2.Run, event: run_service_pb2.RunEvent) -> Table:
    measurement, answer = event.measurement, event.recommendation
    table = Table(
        Column("group", overflow="fold"), "measured", "error", "share", "reference", "multiplier",
        "outcome",
        title=f"step {measurement.step}, against {short_name(answer.profile)}", box=box.SIMPLE,
        padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    errors = measurement.relative_errors or [0.0] * len(answer.multipliers)
    for i, group in enumerate(run.opening.layout.groups):
        table.add_row(
            plain(group.name),
            number(measurement.unit_rates[i]),
            f"{errors[i]:.0%}",
            f"{measurement.shares[i]:.1%}" if measurement.shares else "",
            number(answer.reference_unit_rates[i]),
            number(answer.multipliers[i]),
            enum_word(policy_pb2.Outcome, answer.outcomes[i]),
        )
    return table

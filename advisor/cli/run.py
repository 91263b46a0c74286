"""``advisor run``: what training jobs measured, and what was recommended to them."""

from __future__ import annotations

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
    date,
    date_with_seconds,
    fail,
    message_dict,
    plain,
    print_json,
    say,
    warn,
)
from advisor.cli.progress import counted
from advisor.cli.run_metrics import metrics_table
from advisor.cli.run_reading import read_events, read_metrics, read_run
from advisor.cli.run_view import groups_table, run_view
from advisor.cli.tables import print_table, print_view
from advisor.policy.counts import count_of
from advisor.report.metrics import metric_rows, metric_series
from advisor.report.runs import RunRow, run_state
from advisor.report.words import format_number

app = typer.Typer(help="Look at the training jobs that use the advisor.", no_args_is_help=True)

RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The run's name.", autocompletion=completion.runs),
]
_MAX_NAMED = 8  # roles in an error


@app.command("list")
def list_(
    address: Address = DEFAULT_ADDRESS, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """List the runs, the newest first."""
    with client(address) as advisor:
        runs = list(counted(advisor.list_runs(project=project), "reading the runs"))
    if as_json:
        print_json([message_dict(run) for run in runs])
        return
    if not runs:
        say(f"no runs in project {plain(project)}")
        return
    now = datetime.now(UTC)
    rows = [RunRow.of(run, now) for run in runs]
    some_lost = any(row.lost_measurements for row in rows)
    table = Table(
        Column("run", overflow="fold"),
        *("state", "step", "loss", "learning\nrate", "times\nmeasured"),
        *(["lost"] if some_lost else []),
        "profile",
        Column("last measured\n(UTC)", no_wrap=True),
        box=box.SIMPLE,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    for row in rows:
        table.add_row(
            plain(row.run),
            row.state,
            str(row.last_step),
            "" if row.loss is None else format_number(row.loss),
            "" if row.learning_rate is None else format_number(row.learning_rate),
            str(row.measurements),
            *([str(row.lost_measurements)] if some_lost else []),
            plain(row.profile),
            date(row.update_time),
        )
    print_table(table)


@app.command()
def show(
    run: RunArgument,
    last: Annotated[
        int, typer.Option(min=0, help="Number of measurements to list, the newest; 0: none.")
    ] = 10,
    groups: Annotated[
        bool, typer.Option("--groups", help="Also list each group in the last measurement.")
    ] = False,
    role: Annotated[str, typer.Option(help="Of the groups, list only those of this role.")] = "",
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show a run: total output change, contributions, recommended learning rates, own metrics.

    With --json, all stored measurements, answers and metrics are printed.
    """
    with client(address) as advisor:
        if as_json:
            summary = advisor.get_run(run, project=project)
            events = list(read_events(advisor, summary, project))
            reports = read_metrics(advisor, run, project)
            print_json({
                "run": message_dict(summary),
                "events": [message_dict(event) for event in events],
                "metrics": [message_dict(report) for report in reports],
            })
            return
        figures = read_run(advisor, run, project).figures
        metrics = metric_rows(metric_series(read_metrics(advisor, run, project)))
    rows = figures.recommended_groups(role) if groups or role else []
    if role and not rows:
        fail(
            f"run {run} has no role {role!r}; its roles are "
            f"{', '.join(figures.reader.roles.names[:_MAX_NAMED])}"
        )
    print_view(run_view(figures, datetime.now(UTC), measurements=last))
    if metrics:
        print_table(metrics_table(metrics))
    if rows:
        print_table(groups_table(rows, observes_only=figures.observes_only))
    if figures.left_out:
        warn(
            f"{count_of(figures.left_out, 'measurement')} of an earlier layout left out: the run "
            "was restarted with other groups"
        )
    if figures.run.HasField("concurrent_time"):
        time = date_with_seconds(figures.run.concurrent_time.ToDatetime(UTC))
        warn(
            f"two jobs reported measurements to this run, last at {time} UTC: its history mixes "
            "two trainings; give each job its own run name, or stop one of them"
        )


@app.command()
def delete(
    run: RunArgument,
    yes: Yes = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Delete a run, its history and its metrics. A run that still trains appears again."""
    with client(address) as advisor:
        summary = advisor.get_run(run, project=project)
        state = run_state(summary, datetime.now(UTC))
        confirm(
            f"Delete run {run} ({count_of(summary.measurements, 'measurement')}, {state})?", yes=yes
        )
        advisor.delete_run(run, project=project)
    if as_json:
        print_json({"run": run, "deleted": True})
        return
    say(f"deleted [bold]{plain(run)}[/]")

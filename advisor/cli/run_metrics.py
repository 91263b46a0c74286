"""``advisor run metrics`` and ``report-metrics``: a run's metrics, and how rates move with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich import box
from rich.padding import Padding
from rich.table import Column, Table

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    MAX_INT64,
    Address,
    Json,
    Project,
    client,
    console,
    fail,
    plain,
    print_json,
    say,
)
from advisor.cli.progress import counted, progress
from advisor.cli.run_reading import read_events
from advisor.cli.tables import print_table
from advisor.policy.control_characters import without_controls
from advisor.policy.counts import count_of
from advisor.report.metrics import MetricRow, metric_rows, metric_series, relations
from advisor.report.relation import relation_sentence
from advisor.report.words import METRIC_DIGITS, format_number

_Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The run's name.", autocompletion=completion.runs),
]


def metrics(
    run: _Run,
    relation: Annotated[
        str, typer.Option(metavar="METRIC", help="Compare the run's rates with this metric.")
    ] = "",
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show a run's own metrics, or how its total rate and shares move with one of them."""
    with client(address) as advisor:
        reports = advisor.list_run_metrics(run, project=project)
        series = metric_series(counted(reports, f"reading the metrics of {without_controls(run)}"))
        if relation:
            summary = advisor.get_run(run, project=project)
            events = list(read_events(advisor, summary, project))
    if not relation:
        rows = metric_rows(series)
        if as_json:
            print_json([asdict(row) for row in rows])
        elif rows:
            print_table(metrics_table(rows))
        else:
            say(
                f"run {plain(run)} has no metrics; report them with `advisor run report-metrics`, "
                "or in a training with `attachment.report_metrics`"
            )
        return
    try:
        with progress("comparing rates with the metric"):
            found = relations(summary, events, series, relation)
    except ValueError as error:
        fail(str(error))
    if as_json:
        print_json([{**asdict(row), "verdict": row.verdict.value} for row in found])
        return
    for row in found:
        say(f"[bold]{plain(row.series)}[/]  {row.verdict.value}")
        console.print(Padding(plain(relation_sentence(row)), (0, 0, 0, 4)), highlight=False)


def report_metrics(
    run: _Run,
    step: Annotated[
        int,
        typer.Argument(
            min=0, max=MAX_INT64, help="Optimizer steps completed before the values were measured."
        ),
    ],
    values: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="The values by the metric's name.")
    ],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Store values of a run's own metrics, such as those of a nightly evaluation."""
    parsed = dict(_parsed(value) for value in values)
    if len(parsed) < len(values):
        fail("a metric is given twice; give each name once")
    with client(address) as advisor:
        advisor.report_run_metrics(run, step, parsed, project=project)
    say(f"stored {count_of(len(parsed), 'metric')} of [bold]{plain(run)}[/] at step {step}")


def _parsed(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        return name, float(value)
    except ValueError:
        fail(f"{text!r} is not NAME=VALUE with a number, such as val_accuracy=0.91")


def metrics_table(rows: Sequence[MetricRow]) -> Table:
    """Return the metrics as a table for the terminal."""
    table = Table(
        "metric",
        *(
            Column(name, justify="right", no_wrap=True)
            for name in ("last", "at step", "lowest", "highest", "points", "gaps")
        ),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for row in rows:
        table.add_row(
            plain(row.metric),
            _number(row.last),
            "" if row.last_step is None else str(row.last_step),
            _number(row.lowest),
            _number(row.highest),
            str(row.points),
            str(row.gaps),
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else format_number(value, METRIC_DIGITS)

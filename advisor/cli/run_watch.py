"""``advisor run watch``: a run's measurements as they arrive."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Json,
    Project,
    client,
    console,
    date_with_seconds,
    fail,
    message_dict,
    warn,
)
from advisor.cli.run import RunArgument
from advisor.cli.run_reading import read_events
from advisor.cli.run_view import view_of_height
from advisor.report.run_figures import RunFigures
from advisor.report.runs import MeasurementRow, has_finished, run_state
from advisor.report.words import format_number, format_percent
from fslr import AdvisorClient, RunNotFoundError
from fslr.advisor.v1 import run_service_pb2

_EVENT_ID = re.compile(r"([0-9]{1,18}-[0-9]{1,18})?")
_MULTIPLIERS = "multipliers: min, median, max"
_WOULD_HAVE_BEEN = "would have been: min, median, max"
_REFRESHES_PER_SECOND = 4


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
    lines: Annotated[
        bool,
        typer.Option("--lines", help="Print a line for each measurement in a terminal too."),
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show a run's measurements as they arrive, until it has finished or ended, or Ctrl-C.

    In a terminal, a live view of 80 columns shows the figures of the run; elsewhere each
    measurement is a line. A run has finished if its job said how many steps it takes, and no
    measurement is left. It has ended if its job closed the attachment. A run is silent if nothing
    has arrived for long. Of a run that is not training, only what is stored is shown.
    """
    if not _EVENT_ID.fullmatch(after_id):
        fail(f"--after-id {after_id!r} is not the id of an event; `--json` prints the ids")
    is_live = console.is_terminal and not as_json and not lines
    with client(address) as advisor, contextlib.suppress(KeyboardInterrupt):
        events, summary, ends = _watched(advisor, run, after_id, project, wait=wait)
        shown = _until_finished(_limited(events, count), summary if ends else None)
        if is_live:
            LiveRun(advisor, run, project).show(shown)
            return
        if as_json:
            for event in shown:
                typer.echo(json.dumps(message_dict(event)))
            return
        columns = () if summary is None else _print_heading(summary)
        for event in shown:
            columns = columns or _print_heading(advisor.get_run(run, project=project))
            typer.echo(_line(_cells(MeasurementRow.of(event)), columns))


class LiveRun:
    """A run whose figures change in the terminal as its measurements arrive.

    Args:
        advisor: The client.
        run: The run.
        project: Its project.
    """

    def __init__(self, advisor: AdvisorClient, run: str, project: str) -> None:
        self._advisor = advisor
        self._run = run
        self._project = project
        self._figures: RunFigures | None = None

    def show(self, events: Iterator[run_service_pb2.RunEvent]) -> None:
        """Show events until there are no more, or Ctrl-C; the last view stays.

        Args:
            events: The events, oldest first.
        """
        with Live(
            get_renderable=self.view,
            console=console,
            refresh_per_second=_REFRESHES_PER_SECOND,
            vertical_overflow="crop",
        ):
            for event in events:
                self.add(event)

    def add(self, event: run_service_pb2.RunEvent) -> None:
        """Add an event. After a restart with a different layout, the figures start anew."""
        figures = self._figures
        if figures is None or not figures.reader.fits(event):
            figures = RunFigures.of(self._advisor.get_run(self._run, project=self._project))
        figures.add(event)
        run, step = figures.run, event.measurement.step
        run.update_time.CopyFrom(event.time)
        run.last_step, run.next_measurement_step = step, event.recommendation.next_measurement_step
        run.measurements = max(run.measurements, len(figures.points))
        self._figures = figures

    def view(self) -> RenderableType:
        """Return what is shown now."""
        if self._figures is None:
            return Text("waiting for the first measurement")
        return view_of_height(self._figures, datetime.now(UTC), console.height)


def _until_finished(
    events: Iterator[run_service_pb2.RunEvent], summary: run_service_pb2.Run | None
) -> Iterator[run_service_pb2.RunEvent]:
    """Return events up to the last one of a run; None: all events."""
    for event in events:
        yield event
        next_step = event.recommendation.next_measurement_step
        if summary is not None and has_finished(summary, next_step):
            return


def _watched(
    advisor: AdvisorClient, run: str, after_id: str, project: str, *, wait: bool
) -> tuple[Iterator[run_service_pb2.RunEvent], run_service_pb2.Run | None, bool]:
    """Return the events to print, the run, and whether to end when the run has finished.

    The run is None if it may not have started.
    """
    if wait:
        return advisor.watch_run(run, after_id=after_id, project=project), None, False
    try:
        summary = advisor.get_run(run, project=project)
    except RunNotFoundError as error:
        fail(f"{error}; --wait waits for it to start")
    state = run_state(summary, datetime.now(UTC))
    if state == "silent":
        last = date_with_seconds(summary.update_time.ToDatetime(UTC))
        warn(f"nothing has arrived since {last} UTC; --wait goes on waiting")
    if state in {"finished", "ended", "silent"}:
        stored = list(read_events(advisor, summary, project))
        return (event for event in stored if _is_after(event.id, after_id)), summary, False
    return advisor.watch_run(run, after_id=after_id, until_end=True, project=project), summary, True


def _is_after(event_id: str, other: str) -> bool:
    """Return whether an event's id comes after another one's; empty: before all."""
    return not other or [int(p) for p in event_id.split("-")] > [int(p) for p in other.split("-")]


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


def _print_heading(run: run_service_pb2.Run) -> tuple[str, ...]:
    """Print the names of the columns, and return them."""
    multipliers = _WOULD_HAVE_BEEN if run.opening.observe_only else _MULTIPLIERS
    columns = ("step", "loss", "total rate", "nonlinear", multipliers, "next", "outcomes")
    typer.echo(_line(columns, columns))
    return columns


def _line(cells: Sequence[str], columns: Sequence[str]) -> str:
    """Return the cells as a line of columns, each as wide as its heading."""
    widths = [max(len(column), 8) for column in columns[:-1]]
    padded = [cell.rjust(width) for cell, width in zip(cells[:-1], widths, strict=True)]
    return "  ".join([*padded, cells[-1]])

"""``advisor report``: a run as one file, for people who decide."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    STDOUT,
    Address,
    Project,
    client,
    fail,
    plain,
    say,
)
from advisor.cli.progress import progress
from advisor.cli.run_reading import ReadRun, read_metrics, read_run
from advisor.report.metrics import metric_series
from advisor.report.words import short_name
from fslr.optional_dependencies import install_command

_MAX_NAMED, _MAX_NAME = 10, 60  # metrics in an error, and characters of a name


class Language(StrEnum):
    """The languages of a report."""

    EN = "en"
    JA = "ja"


def report(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="The run's name.", autocompletion=completion.runs),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file, which is replaced; - is standard output. Default: RUN.html.",
        ),
    ] = None,
    lang: Annotated[Language, typer.Option(help="The language.")] = Language.EN,
    metric: Annotated[
        str,
        typer.Option(
            help="The run's own metric that is compared with the rates. Default: its only one."
        ),
    ] = "",
    pdf: Annotated[
        bool,
        typer.Option(
            "--pdf", help="Also print it to a PDF of A4 pages beside the file; needs Chromium."
        ),
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Write a report of a run: one HTML file that needs no network and prints to A4.

    It has total output change, contributions and recommended learning rates as pictures, what
    measuring cost, what the numbers do not say, and a paragraph for the next step.
    """
    if pdf and output == STDOUT:
        fail("--pdf needs a file; give -o FILE instead of -")
    if pdf and output is not None and output.suffix.lower() == ".pdf":
        fail(
            f"-o names the HTML file, and --pdf writes {output} beside it; give "
            f"-o {output.with_suffix('.html')}"
        )
    with client(address) as advisor:
        found = read_run(advisor, run, project)
        values = metric_series(read_metrics(advisor, run, project))
    if metric and metric not in values:
        known = ", ".join(list(values)[:_MAX_NAMED]) or "none were reported"
        fail(f"run {run} has no metric {metric[:_MAX_NAME]!r}; its metrics: {known}")
    write_report(found, output, lang, pdf=pdf, values=values, metric=metric)


def write_report(
    found: ReadRun,
    output: Path | None,
    lang: Language,
    *,
    pdf: bool = False,
    values: Mapping[str, Mapping[int, float]] | None = None,
    metric: str = "",
) -> None:
    """Write the report of a run, or end the command with a message.

    Args:
        found: The run.
        output: The file; ``-``: standard output; None: the run's name in the working directory.
        lang: The language.
        pdf: Whether to print it too.
        values: The values of the run's own metrics by step.
        metric: The metric that is compared with the rates; empty: the only one.

    Raises:
        Exit: Jinja2 is missing, or a file cannot be written.
    """
    try:
        from advisor.document.metrics_section import ReportedMetrics  # noqa: PLC0415 - needs
        from advisor.document.run_report import run_report  # noqa: PLC0415 - an extra
    except ImportError as error:
        fail(f"a report needs Jinja2 ({error}); {install_command('web')}")
    known = values or {}
    metrics = ReportedMetrics(known, metric or (next(iter(known)) if len(known) == 1 else ""))
    now = datetime.now(UTC)
    with progress("drawing the report"):
        page = run_report(found.figures, found.profile, language=lang, now=now, metrics=metrics)
    if output == STDOUT:
        typer.echo(page, nl=False)
        return
    path = output or Path(f"{short_name(found.figures.run.name)}.html")
    try:
        path.write_text(page, "utf-8")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")
    say(f"wrote [bold]{plain(str(path))}[/]")
    if pdf:
        _print(path)


def _print(path: Path) -> None:
    """Print a page to a PDF beside it."""
    from advisor.document.pdf import PdfError, print_to_pdf  # noqa: PLC0415 - only with --pdf

    output = path.with_suffix(".pdf")
    try:
        with progress(f"printing {output}"):
            print_to_pdf(path, output)
    except PdfError as error:
        fail(str(error))
    say(f"wrote [bold]{plain(str(output))}[/]")

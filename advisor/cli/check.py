"""``advisor check``: whether runs scale as they should, as a sheet and as an exit code for CI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree as ET

import typer
from rich.padding import Padding

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
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
from advisor.cli.progress import progress
from advisor.cli.run_reading import read_events
from advisor.policy.control_characters import without_controls
from advisor.report.check import CheckRow, Status, check_rows
from advisor.report.check_sentences import check_counts, check_finding, check_remedy
from advisor.report.checked_run import CheckedRun
from advisor.report.texts import Texts
from fslr import AdvisorClient

_UNUSABLE = 2  # the status of wrong usage as well
_TEXTS = Texts("en")
_COLORS = {Status.PASS: "green", Status.FAIL: "bold red", Status.NOT_ENOUGH_DATA: "yellow"}


def check(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="The runs: one, or several of different widths.",
            autocompletion=completion.runs,
        ),
    ],
    junit: Annotated[
        Path | None, typer.Option(help="Also write the results to this file as JUnit XML.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail as well if a check has not enough data.")
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Check whether runs scale as they should: a pass/fail sheet for a parametrization.

    The status is 0 if no check failed, 1 if one failed, and 2 if the runs cannot be checked.
    """
    if len(set(runs)) < len(runs):
        fail("a run is given twice; give each run once", status=_UNUSABLE)
    with client(address, status=_UNUSABLE) as advisor:
        checked = [_read(advisor, run, project) for run in runs]
    with progress("checking"):
        rows = check_rows(checked)
    if junit is not None:
        try:
            junit.write_bytes(junit_xml(rows, strict=strict))
        except OSError as error:
            fail(f"{junit} cannot be written: {error.strerror}", status=_UNUSABLE)
    if as_json:
        print_json([_as_fields(row) for row in rows])
    else:
        _print_sheet(rows)
    _finish(rows, strict=strict)


def _read(advisor: AdvisorClient, run: str, project: str) -> CheckedRun:
    """Read a run and a sample of its history."""
    summary = advisor.get_run(run, project=project)
    return CheckedRun.of(summary, read_events(advisor, summary, project))


def _finish(rows: Sequence[CheckRow], *, strict: bool) -> None:
    """End the command with status 1 if a check failed.

    Raises:
        Exit: A check failed.
    """
    if any(_fails(row, strict=strict) for row in rows):
        raise typer.Exit(1)


def _print_sheet(rows: Sequence[CheckRow]) -> None:
    for row in rows:
        color = _COLORS[row.status]
        run = plain(row.run) or "all runs"
        say(f"[{color}]{row.status.value:15}[/] [bold]{row.check}[/]  {run}")
        for sentence in filter(None, (check_finding(row, _TEXTS), check_remedy(row, _TEXTS))):
            console.print(Padding(plain(sentence), (0, 0, 0, 4)), highlight=False)
    say(check_counts(rows, _TEXTS))


def _as_fields(row: CheckRow) -> dict[str, object]:
    return {
        "check": row.check,
        "run": row.run,
        "status": row.status.value,
        "finding": check_finding(row, _TEXTS),
        "remedy": check_remedy(row, _TEXTS),
    }


def junit_xml(rows: Sequence[CheckRow], *, strict: bool = False) -> bytes:
    """Return the sheet as JUnit XML: one test suite, one test case for each row.

    Args:
        rows: The sheet.
        strict: Whether a check without enough data is a failure; else it is skipped.
    """
    failed = sum(_fails(row, strict=strict) for row in rows)
    skipped = sum(row.status is Status.NOT_ENOUGH_DATA for row in rows) if not strict else 0
    root = ET.Element("testsuites")
    suite = ET.SubElement(
        root,
        "testsuite",
        name="advisor check",
        tests=str(len(rows)),
        failures=str(failed),
        errors="0",
        skipped=str(skipped),
    )
    for row in rows:
        case = ET.SubElement(
            suite, "testcase", classname=f"advisor.check.{row.run or 'all'}", name=row.check
        )
        finding = without_controls(check_finding(row, _TEXTS))
        if _fails(row, strict=strict):
            failure = ET.SubElement(case, "failure", message=finding)
            failure.text = without_controls(check_remedy(row, _TEXTS))
        elif row.status is Status.NOT_ENOUGH_DATA:
            ET.SubElement(case, "skipped", message=finding)
        else:
            ET.SubElement(case, "system-out").text = finding
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _fails(row: CheckRow, *, strict: bool) -> bool:
    return row.status is Status.FAIL or (strict and row.status is Status.NOT_ENOUGH_DATA)

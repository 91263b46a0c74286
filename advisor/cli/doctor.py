"""``advisor doctor``: check a deployment."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from advisor.cli.common import DEFAULT_ADDRESS, Address, Json, plain, print_json, say
from advisor.cli.progress import progress
from advisor.cli.tables import print_table
from advisor.doctor.examination import examine
from advisor.doctor.findings import Finding, Level, worst

_MARKS = {
    Level.OK: "[green]ok[/]",
    Level.UNKNOWN: "[cyan]unknown[/]",
    Level.WARNING: "[yellow]warning[/]",
    Level.PROBLEM: "[bold red]problem[/]",
}


def doctor(
    *,
    address: Address = DEFAULT_ADDRESS,
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            "-p",
            envvar="ADVISOR_PROJECT",
            help="Project that the token must be for. Default: any.",
        ),
    ] = None,
    timeout_s: Annotated[
        float,
        typer.Option(
            help="Maximum wait for each connection and answer, in seconds.", min=0.1, max=60
        ),
    ] = 5.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with status 1 at warnings too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a deployment from a client's side and print what to fix; exit with 1 at a problem."""
    with progress(f"examining {address}"):
        findings = examine(address, project=project, timeout_s=timeout_s)
    level = worst(findings)
    if as_json:
        listed = [asdict(f) | {"level": f.level.name.lower()} for f in findings]
        print_json({"address": address, "worst": level.name.lower(), "findings": listed})
    else:
        _print(findings)
    if level >= (Level.WARNING if strict else Level.PROBLEM):
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        words = plain(finding.found)
        if finding.remedy:
            words += f"\n[bold]→ {plain(finding.remedy)}[/]"
        table.add_row(_MARKS[finding.level], plain(finding.check), words)
    print_table(table)
    counts = [
        f"{len(found)} {name}{'s' if len(found) > 1 else ''}"
        for level, name in ((Level.PROBLEM, "problem"), (Level.WARNING, "warning"))
        if (found := [f for f in findings if f.level is level])
    ]
    say(f"\n{', '.join(counts) or 'No problems found'}.")

"""``advisor audit``: who changed what."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer
from rich import box
from rich.table import Column, Table

from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    MAX_INT64,
    Address,
    Json,
    Project,
    client,
    date_with_seconds,
    message_dict,
    note,
    plain,
    print_json,
    say,
)
from advisor.cli.progress import counted
from advisor.cli.tables import print_table
from advisor.report.audit import AuditRow


def audit(
    count: Annotated[
        int,
        typer.Option("--count", "-n", min=1, max=MAX_INT64, help="Maximum number of writes."),
    ] = 50,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show who changed profiles, policies, recipes and tokens, the newest change first."""
    with client(address) as advisor:
        wanted = islice(advisor.list_audit_events(project=project), count + 1)
        events = list(counted(wanted, "reading"))
    if len(events) > count:
        del events[count:]
        note(f"these are the newest {count}; -n shows more")
    if as_json:
        print_json([message_dict(event) for event in events])
        return
    if not events:
        say(f"nothing has been changed in project {plain(project)} yet")
        return
    table = Table(
        "time (UTC)", "actor", "from", "action", Column("name", overflow="fold"),
        Column("detail", overflow="fold"), box=box.SIMPLE,
    )  # fmt: skip
    for row in map(AuditRow.of, events):
        table.add_row(
            date_with_seconds(row.time),
            plain(row.actor),
            plain(row.peer),
            row.action,
            plain(row.name),
            plain(row.detail),
        )
    print_table(table)

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
    Address,
    Json,
    Project,
    client,
    console,
    message_dict,
    plain,
    print_json,
)


def audit(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Most writes to show.")] = 50,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show the writes of a project, the newest first."""
    with client(address) as advisor:
        events = list(islice(advisor.audit_events(project=project), count))
    if as_json:
        print_json([message_dict(event) for event in events])
        return
    if not events:
        console.print(f"nothing was written in project {plain(project)} yet")
        return
    table = Table(
        "time (UTC)", "who", "from", "what", Column("name", overflow="fold"),
        Column("detail", overflow="ellipsis", max_width=12, no_wrap=True), box=box.SIMPLE,
    )  # fmt: skip
    for event in events:
        table.add_row(
            event.time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S"),
            plain(event.actor),
            plain(event.peer),
            event.action,
            plain(event.name),
            plain(event.detail),
        )
    console.print(table)

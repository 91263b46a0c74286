"""``advisor audit``: who changed what."""

from __future__ import annotations

import re
from itertools import islice
from typing import Annotated

import typer
from rich import box
from rich.table import Column, Table

from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    LARGEST,
    Address,
    Json,
    Project,
    client,
    console,
    message_dict,
    plain,
    print_json,
    rules_in_words,
    say,
)
from advisor.store.codec import decode_policy
from advisor.wire import policy_to_proto


def audit(
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=LARGEST, help="Most writes to show.")
    ] = 50,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show the writes of a project, the newest first."""
    with client(address) as advisor:
        events = list(islice(advisor.list_audit_events(project=project), count))
    if as_json:
        print_json([message_dict(event) for event in events])
        return
    if not events:
        say(f"nothing was written in project {plain(project)} yet")
        return
    table = Table(
        "time (UTC)", "who", "from", "what", Column("name", overflow="fold"),
        Column("detail", overflow="fold"), box=box.SIMPLE,
    )  # fmt: skip
    for event in events:
        table.add_row(
            event.time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S"),
            plain(event.actor),
            plain(event.peer),
            event.action,
            plain(event.name),
            plain(_detail(event.action, event.detail)),
        )
    console.print(table)


def _detail(action: str, text: str) -> str:
    """Return a digest cut to what people compare, rules in words, anything else as it is."""
    if action == "set policy":
        try:
            return rules_in_words(policy_to_proto(decode_policy(text.encode())))
        except (ValueError, TypeError, KeyError):  # rules that only a newer version knows
            return text
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text

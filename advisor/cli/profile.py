"""``advisor profile``: register, list and show profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Json,
    Project,
    client,
    date,
    message_dict,
    plain,
    print_guideline,
    print_json,
    print_message,
    print_registered,
    say,
)
from advisor.cli.name_cells import NameCell
from advisor.cli.progress import counted, progress
from advisor.cli.tables import print_table
from advisor.policy.control_characters import without_controls
from advisor.report.profiles import ProfileRow, UnitRateTable, profile_facts, unit_rate_table
from advisor.report.words import format_number, format_tensor
from fslr import load_profile

app = typer.Typer(help="Register reference profiles and look at them.", no_args_is_help=True)

ProfileArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE",
        help="A profile, such as char-gpt, char-gpt@3 or char-gpt@prod.",
        autocompletion=completion.profiles,
    ),
]


@app.command()
def register(
    profile: ProfileArgument,
    file: Annotated[
        Path, typer.Argument(help="JSON or YAML file, as written by fslr.save_profile.")
    ],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Register a profile from a file.

    Registering the same content again returns the existing version.
    """
    with client(address) as advisor:
        with progress(f"reading {without_controls(str(file))}"):
            content = load_profile(file)
        response = advisor.register_profile(profile, content, project=project)
    if as_json:
        print_message(response)
    else:
        print_registered(response)


@app.command("list")
def list_(
    label_filter: Annotated[
        str, typer.Option("--filter", help="labels.KEY=VALUE; join several with ' AND '.")
    ] = "",
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """List the latest version of each profile."""
    with client(address) as advisor:
        listed = advisor.list_profiles(project=project, label_filter=label_filter)
        profiles = list(counted(listed, "reading the profiles"))
    if as_json:
        print_json([message_dict(profile) for profile in profiles])
        return
    if not profiles and label_filter:
        say(f"no profile in project {plain(project)} has {plain(label_filter)}")
        return
    if not profiles:
        say(f"no profiles in project {plain(project)}; `advisor profile register` adds one")
        return
    table = Table("profile", "groups", "base lr", "optimizer", "model", "aliases", "registered")
    for row in map(ProfileRow.of, profiles):
        table.add_row(
            plain(row.profile),
            "unreadable" if row.groups is None else str(row.groups),
            format_number(row.base_learning_rate),
            plain(row.optimizer),
            plain(row.model),
            ", ".join(row.aliases),
            date(row.create_time),
        )
    print_table(table)


@app.command()
def show(
    profile: ProfileArgument,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show one version: its origin, its rules and its unit rates."""
    with client(address) as advisor:
        response = advisor.get_profile(profile, project=project)
    if as_json:
        print_message(response)
        return
    facts = Table.grid(padding=(0, 2))
    for fact in profile_facts(response):
        facts.add_row(f"[dim]{fact.label}[/]", plain(fact.value))
    print_table(facts)
    content = response.profile.content
    print_guideline(content.docs)
    print_table(_unit_rates_table(unit_rate_table(content)))


def _unit_rates_table(rates: UnitRateTable) -> Table:
    table = Table(title="unit rates, in output units per learning rate", title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("role", overflow="fold")
    has_tensors = any(row.kind or row.shape for row in rates.groups)
    if has_tensors:
        table.add_column("tensor", no_wrap=True)
        table.add_column("initial RMS")
    for step in rates.steps:
        table.add_column(f"step {step}", no_wrap=True)
    for row in rates.groups:
        rms = "" if row.initial_rms is None else format_number(row.initial_rms)
        tensor = (format_tensor(row.kind, row.shape), rms)
        table.add_row(
            NameCell(row.group),
            NameCell(row.role),
            *(tensor if has_tensors else ()),
            *map(format_number, row.unit_rates),
        )
    return table

"""``advisor profile``: the registry, for operators."""

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
    console,
    message_dict,
    number,
    plain,
    print_guideline,
    print_json,
    print_message,
    rules_in_words,
    say,
    short_name,
)
from fslr import load_profile
from fslr.advisor.v1 import profile_pb2

app = typer.Typer(help="Register reference profiles and look at them.", no_args_is_help=True)

ProfileArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE",
        help="Such as char-gpt, char-gpt@3 or char-gpt@prod.",
        autocompletion=completion.profiles,
    ),
]


@app.command()
def register(
    profile: ProfileArgument,
    file: Annotated[
        Path, typer.Argument(help="Profile as JSON or YAML, as fslr.save_profile writes it.")
    ],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Store a profile from a file; the same content again is the same version."""
    with client(address) as advisor:
        response = advisor.register_profile(profile, load_profile(file), project=project)
    if as_json:
        print_message(response)
        return
    verb = "registered" if response.created else "there already, unchanged:"
    say(f"{verb} [bold]{plain(response.profile.name)}[/]  {response.profile.digest[:12]}")


@app.command("list")
def list_(
    label_filter: Annotated[
        str, typer.Option("--filter", help="labels.KEY=VALUE, several joined by ' AND '.")
    ] = "",
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """List the latest version of each profile."""
    with client(address) as advisor:
        profiles = list(advisor.list_profiles(project=project, label_filter=label_filter))
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
    for profile in profiles:
        content = profile.content
        table.add_row(
            plain(short_name(profile.name)),
            str(profile.group_count) if profile.HasField("content") else "unreadable",
            number(content.base_learning_rate),
            plain(content.provenance.optimizer),
            plain(content.provenance.model),
            ", ".join(profile.aliases),
            profile.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M"),
        )
    console.print(table)


@app.command()
def show(
    profile: ProfileArgument,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show one version: where it comes from, its rules, its unit rates."""
    with client(address) as advisor:
        response = advisor.get_profile(profile, project=project)
    if as_json:
        print_message(response)
        return
    shown = response.profile
    content, provenance = shown.content, shown.content.provenance
    facts = Table.grid(padding=(0, 2))
    aliases = (f"{a.name} -> @{a.version} (etag {a.etag})" for a in response.aliases)
    for key, value in (
        ("name", shown.name),
        ("digest", shown.digest),
        ("registered", shown.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("aliases", ", ".join(aliases)),
        ("versions", ", ".join(str(version) for version in response.versions)),
        ("base lr", number(content.base_learning_rate)),
        ("steps", f"{content.total_steps}, recorded at {len(content.points)} of them"),
        *_provenance(provenance),
        ("labels", ", ".join(f"{k}={v}" for k, v in sorted(content.labels.items()))),
        ("policy", content.policy_name or rules_in_words(content.policy)),
        ("spread", _spread(content)),
        ("group aliases", "\n".join(f"{a.pattern} -> {a.target}" for a in content.group_aliases)),
    ):
        if value:
            facts.add_row(f"[dim]{key}[/]", plain(value))
    console.print(facts)
    print_guideline(content.docs)
    console.print(_rates_table(content))


def _provenance(provenance: profile_pb2.Provenance) -> list[tuple[str, str]]:
    """Return all that is said of where the profile comes from."""
    words = message_dict(provenance)
    if provenance.HasField("record_time"):
        words["record_time"] = provenance.record_time.ToDatetime().strftime("%Y-%m-%d %H:%M UTC")
    return [(key.replace("_", " "), str(value)) for key, value in words.items()]


def _spread(content: profile_pb2.ProfileContent) -> str:
    spreads = sorted(s for point in content.points for s in point.spreads)
    return f"median {spreads[len(spreads) // 2]:.0%} between seeds" if spreads else ""


def _rates_table(content: profile_pb2.ProfileContent) -> Table:
    """Return each group's unit rate at the first, the middle and the last recorded point."""
    picked = sorted({0, len(content.points) // 2, len(content.points) - 1})
    points = [content.points[i] for i in picked]
    table = Table(title="unit rates, output units per learning rate", title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("role", overflow="fold")
    for point in points:
        table.add_column(f"step {point.step}", no_wrap=True)
    for i, group in enumerate(content.layout.groups):
        table.add_row(
            plain(group.name),
            plain(group.role) if group.role != group.name else "",
            *(number(point.unit_rates[i]) for point in points),
        )
    return table

"""``advisor profile alias|delete``: promote and delete versions."""

from __future__ import annotations

from typing import Annotated

import typer

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    MAX_INT64,
    Address,
    Json,
    Project,
    Yes,
    client,
    confirm,
    fail,
    plain,
    print_json,
    print_message,
    say,
)
from advisor.cli.profile import ProfileArgument
from advisor.report.words import short_name


def alias(
    profile: ProfileArgument,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias, such as prod.")],
    delete: Annotated[bool, typer.Option("--delete", help="Delete the alias.")] = False,
    etag: Annotated[
        str, typer.Option(help="Fail if the alias has moved since it was read with this etag.")
    ] = "",
    expected_version: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_INT64,
            help="Fail unless the alias names this version now; 0: it does not exist.",
        ),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Point an alias at a version, which runs that start from now on follow."""
    with client(address) as advisor:
        if delete:
            if expected_version is not None:
                fail("--expected-version cannot be used with --delete; use --etag")
            advisor.delete_alias(profile, name, etag=etag, project=project)
            if as_json:
                print_json({"profile": profile, "alias": name, "deleted": True})
            else:
                say(f"deleted alias [bold]{plain(name)}[/] of {plain(profile)}")
            return
        response = advisor.set_alias(
            profile, name, etag=etag, expected_version=expected_version, project=project
        )
    if as_json:
        print_message(response)
        return
    previous = response.previous_version
    say(
        f"[bold]{plain(name)}[/] now names {plain(short_name(response.profile.name))}"
        + (f", previously @{previous}" if previous else " (new alias)")
        + f"  [dim]etag {response.alias.etag}[/]"
    )


def delete(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE[@VERSION]",
            help="A version, such as char-gpt@3; with --all a profile, such as char-gpt.",
            autocompletion=completion.profiles,
        ),
    ],
    all_versions: Annotated[
        bool, typer.Option("--all", help="Delete the profile with all its versions.")
    ] = False,
    yes: Yes = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Delete a version, or with --all a whole profile. No alias may name what is deleted.

    Version numbers are never reused. Runs keep the version that they have until they connect again.
    """
    with client(address) as advisor:
        if all_versions:
            versions = advisor.get_profile(profile, project=project).versions
            count = "its only version" if len(versions) == 1 else f"all {len(versions)} versions"
            confirm(f"Delete profile {profile} with {count}?", yes=yes)
        advisor.delete_profile(profile, all_versions=all_versions, project=project)
    if as_json:
        print_json({"profile": profile, "deleted": True})
        return
    say(f"deleted [bold]{plain(profile)}[/]")

"""``advisor profile alias|delete``: the life of versions."""

from __future__ import annotations

from typing import Annotated

import typer

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    LARGEST,
    Address,
    Json,
    Project,
    client,
    fail,
    plain,
    print_json,
    print_message,
    say,
    short_name,
)
from advisor.cli.profile import ProfileArgument


def alias(
    profile: ProfileArgument,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as prod.")],
    delete: Annotated[bool, typer.Option("--delete", help="Take the alias away.")] = False,
    etag: Annotated[
        str, typer.Option(help="Only if the alias did not move since it was read with this etag.")
    ] = "",
    expected_version: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST, help="Only if the alias names it now; 0: nothing yet."),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Let an alias name a version, from one moment to the next for all runs to come."""
    with client(address) as advisor:
        if delete:
            if expected_version is not None:
                fail("--expected-version goes with a move; give --etag to delete")
            advisor.delete_alias(profile, name, etag=etag, project=project)
            if as_json:
                print_json({"profile": profile, "alias": name, "deleted": True})
            else:
                say(f"alias [bold]{plain(name)}[/] of {plain(profile)} is gone")
            return
        response = advisor.set_alias(
            profile, name, etag=etag, expected_version=expected_version, project=project
        )
    if as_json:
        print_message(response)
        return
    before = response.previous_version
    say(
        f"[bold]{plain(name)}[/] names {plain(short_name(response.profile.name))} now"
        + (f", it named @{before}" if before else ", it is new")
        + f"  [dim]etag {response.alias.etag}[/]"
    )


def delete(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE@VERSION",
            help="One version, such as char-gpt@3.",
            autocompletion=completion.profiles,
        ),
    ],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Remove one version that no alias names; its number is never given again."""
    with client(address) as advisor:
        advisor.delete_profile(profile, project=project)
    if as_json:
        print_json({"profile": profile, "deleted": True})
        return
    say(f"deleted [bold]{plain(profile)}[/]")

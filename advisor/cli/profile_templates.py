"""``advisor profile templates``: profiles that come with the service, to begin with."""

from __future__ import annotations

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
    fail,
    message_dict,
    number,
    plain,
    print_guideline,
    print_json,
    say,
)
from advisor.registry.templates import load_template, template_names


def templates(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which. Default: all.", metavar="[NAME]...")
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Store them in the project, under their names.")
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """List the profiles that come with the service, or register them as a start for a team.

    Of those that are named the guideline is printed.

    Once registered they are profiles like any other: `profile list --filter labels.kind=template`
    finds them, `profile show` prints their guidelines, `profile export` makes a file to edit.
    """
    there = template_names()
    for name in names or ():
        if name not in there:
            fail(f"there is no template {name!r}; there are {', '.join(there)}")
    contents = {name: load_template(name) for name in names or there}
    if register:
        with client(address) as advisor:
            answers = [
                advisor.register_profile(name, content, project=project)
                for name, content in contents.items()
            ]
        if as_json:
            print_json([message_dict(answer) for answer in answers])
            return
        for answer in answers:
            verb = "registered" if answer.created else "there already, unchanged:"
            say(f"{verb} [bold]{plain(answer.profile.name)}[/]")
        return
    if as_json:
        print_json({name: message_dict(content) for name, content in contents.items()})
        return
    table = Table(
        Column("template", no_wrap=True), "groups", "base lr", "optimizer", "model", box=box.SIMPLE
    )
    for name, content in contents.items():
        table.add_row(
            name,
            str(len(content.layout.groups)),
            number(content.base_learning_rate),
            content.provenance.optimizer,
            f"{content.provenance.model}; width {content.provenance.width}, "
            f"depth {content.provenance.depth}",
        )
    console.print(table)
    for name in names or ():
        print_guideline(contents[name].docs)
    say("`advisor profile templates NAME --register` stores one in your project")

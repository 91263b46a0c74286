"""``advisor profile templates``: profiles that come with the service, as a starting point."""

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
    print_guideline,
    print_json,
    print_registered,
    say,
)
from advisor.registry.templates import load_template, template_names
from advisor.report.profiles import TemplateRow
from advisor.report.words import format_number


def templates(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of templates. Default: all.", metavar="[NAME]..."),
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Register them in the project under their names.")
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """List the profiles that come with the service, or register them as a starting point.

    For templates given by name, their guidelines are printed too.

    Registered templates are ordinary profiles: `profile list --filter labels.kind=template` finds
    them, `profile show` prints their guidelines, and `profile export` writes a file to edit.
    """
    known = template_names()
    for name in names or ():
        if name not in known:
            fail(f"there is no template {name!r}; the templates are {', '.join(known)}")
    contents = {name: load_template(name) for name in names or known}
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
            print_registered(answer)
        return
    if as_json:
        print_json({name: message_dict(content) for name, content in contents.items()})
        return
    table = Table(
        Column("template", no_wrap=True), "groups", "base lr", "optimizer", "model", box=box.SIMPLE
    )
    for row in (TemplateRow.of(name, content) for name, content in contents.items()):
        table.add_row(
            row.template,
            str(row.groups),
            format_number(row.base_learning_rate),
            row.optimizer,
            f"{row.model}; width {row.width}, depth {row.depth}",
        )
    console.print(table)
    for name in names or ():
        print_guideline(contents[name].docs)
    say("`advisor profile templates NAME --register` registers one in your project")

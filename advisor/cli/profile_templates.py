"""``advisor profile templates``: profiles that come with the service, as a starting point."""

from __future__ import annotations

from collections.abc import Mapping
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
    fail,
    message_dict,
    print_guideline,
    print_json,
    print_registered,
    say,
)
from advisor.cli.tables import print_table
from advisor.registry.templates import load_template, template_names
from advisor.report.profiles import TemplateRow
from advisor.report.words import format_number
from fslr.advisor.v1 import profile_pb2


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
        _register(contents, address, project, as_json=as_json)
    elif as_json:
        print_json({name: message_dict(content) for name, content in contents.items()})
    else:
        _print(contents)
        for name in names or ():
            print_guideline(contents[name].docs)
        say("`advisor profile templates NAME --register` registers one in your project")


def _register(
    contents: Mapping[str, profile_pb2.ProfileContent],
    address: str,
    project: str,
    *,
    as_json: bool,
) -> None:
    with client(address) as advisor:
        answers = [
            advisor.register_profile(name, content, project=project)
            for name, content in contents.items()
        ]
    if as_json:
        print_json([message_dict(answer) for answer in answers])
    else:
        for answer in answers:
            print_registered(answer)


def _print(contents: Mapping[str, profile_pb2.ProfileContent]) -> None:
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
    print_table(table)

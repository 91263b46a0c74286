"""``advisor profile export|import|merge``: profiles in files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Project,
    client,
    console,
    fail,
    message_dict,
    plain,
)
from advisor.cli.profile import ProfileArgument
from advisor.merging import merge as merged
from advisor.policy import InvalidValueError
from advisor.rpc.convert import content_from, content_to
from fslr import FslrError, load_profile, save_profile
from fslr.profile_files import formatted


def export(
    profile: ProfileArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .yaml or .json file. Default: YAML to the screen."),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Write a version as a file that can be read, edited and registered again."""
    with client(address) as advisor:
        found = advisor.get_profile(profile, project=project).profile
        if output is None:
            typer.echo(formatted(message_dict(found.content), yaml=True), nl=False)
            return
        save_profile(found.content, output)
    console.print(f"wrote [bold]{plain(str(output))}[/]  {plain(found.name)}")


def import_(
    files: Annotated[list[Path], typer.Argument(help="Files, each named after its profile.")],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Register files under their own names: char-gpt.yaml as char-gpt."""
    with client(address) as advisor:
        contents = [(file.stem, load_profile(file)) for file in files]  # all readable, or none
        for name, content in contents:
            response = advisor.register_profile(name, content, project=project)
            verb = "registered" if response.created else "there already, unchanged:"
            console.print(f"{verb} [bold]{plain(response.profile.name)}[/]")


def merge(
    files: Annotated[list[Path], typer.Argument(help="Recordings of one training, other seeds.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .yaml or .json file.")],
) -> None:
    """Merge recordings into one profile: geometric mean rates, and the spread between seeds."""
    try:
        contents = [content_from(load_profile(file)) for file in files]
        content = content_to(merged(contents))
        save_profile(content, output)
    except (FslrError, InvalidValueError) as error:
        fail(str(error))
    spreads = sorted(s for point in content.points for s in point.spreads)
    console.print(
        f"wrote [bold]{plain(str(output))}[/]: {len(files)} recordings, median spread "
        f"{spreads[len(spreads) // 2]:.1%}, largest {spreads[-1]:.1%}"
    )

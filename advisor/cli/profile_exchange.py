"""``advisor profile export|import|merge``: profiles in files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Json,
    Project,
    client,
    fail,
    message_dict,
    plain,
    print_json,
    say,
)
from advisor.cli.profile import ProfileArgument
from advisor.policy import InvalidValueError
from advisor.registry.merging import merge as merged
from advisor.registry.profiles import ProfileContent
from advisor.registry.resource_names import parse_profile_name
from advisor.wire import content_from_proto, content_to_proto
from fslr import FslrError, load_profile, save_profile
from fslr.advisor.v1 import profile_pb2
from fslr.profile_files import format_profile
from fslr.resource_names import profile_name


def export(
    profile: ProfileArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .yaml or .json file. Default: YAML to the screen."),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Write a version as a file that can be read, edited and registered again."""
    with client(address) as advisor:
        found = advisor.get_profile(profile, project=project).profile
        if output is None:
            typer.echo(format_profile(found.content, yaml=not as_json), nl=False)
            return
        save_profile(found.content, output)
    if as_json:
        print_json({"output": str(output), "name": found.name, "digest": found.digest})
        return
    say(f"wrote [bold]{plain(str(output))}[/]  {plain(found.name)}")


def import_(
    files: Annotated[list[Path], typer.Argument(help="Files, each named after its profile.")],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Register files under their own names: char-gpt.yaml as char-gpt."""
    with client(address) as advisor:
        # All that can be checked here is checked before the first is registered.
        contents = [(file, _checked(file)[0]) for file in files]
        for file, _ in contents:
            with _naming(file):
                parse_profile_name("name", profile_name(file.stem, project))
        registered = []
        for file, content in contents:
            response = advisor.register_profile(file.stem, content, project=project)
            registered.append(message_dict(response))
            if not as_json:
                verb = "registered" if response.created else "there already, unchanged:"
                say(f"{verb} [bold]{plain(response.profile.name)}[/]")
    if as_json:
        print_json(registered)


def merge(
    files: Annotated[list[Path], typer.Argument(help="Recordings of one training, other seeds.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .yaml or .json file.")],
    as_json: Json = False,
) -> None:
    """Merge recordings into one profile: geometric mean rates, and the spread between seeds."""
    contents = [_checked(file)[1] for file in files]
    try:
        content = content_to_proto(merged(contents))
        save_profile(content, output)
    except InvalidValueError as error:
        place = re.fullmatch(r"recordings\[(\d+)\]", error.field)
        fail(f"{files[int(place[1])]}: {error.description}" if place else str(error))
    except FslrError as error:
        fail(str(error))
    spreads = sorted(s for point in content.points for s in point.spreads)
    median, largest = spreads[len(spreads) // 2], spreads[-1]
    if as_json:
        print_json({
            "output": str(output),
            "recordings": content.provenance.recordings,
            "median_spread": median,
            "largest_spread": largest,
        })
        return
    say(
        f"wrote [bold]{plain(str(output))}[/]: {content.provenance.recordings} recordings, median "
        f"spread {median:.1%}, largest {largest:.1%}"
    )


def _checked(file: Path) -> tuple[profile_pb2.ProfileContent, ProfileContent]:
    """Return a file's message and its content, or end the command with what is wrong with it."""
    with _naming(file):
        try:
            message = load_profile(file)
            return message, content_from_proto(message)
        except FslrError as error:
            fail(str(error))


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """End the command with the file's name before what is wrong with its values.

    Yields:
        Nothing.
    """
    try:
        yield
    except InvalidValueError as error:
        fail(f"{file}: {error}")

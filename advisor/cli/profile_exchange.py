"""``advisor profile export|import|merge``: profiles as files."""

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
    STDOUT,
    Address,
    Json,
    Project,
    client,
    fail,
    message_dict,
    plain,
    print_json,
    print_registered,
    say,
    warn,
)
from advisor.cli.profile import ProfileArgument
from advisor.cli.progress import progress
from advisor.policy import InvalidValueError
from advisor.policy.control_characters import without_controls
from advisor.policy.counts import count_of
from advisor.registry.merging import merge as merged
from advisor.registry.profiles import ProfileContent
from advisor.registry.resource_names import parse_profile_name
from advisor.report.profiles import Spread, spread_between_seeds
from advisor.report.words import format_percent
from advisor.wire import content_from_proto, content_to_proto
from fslr import FslrError, load_profile, save_profile
from fslr.advisor.v1 import profile_pb2
from fslr.profile_files import format_profile
from fslr.resource_names import profile_name


def export(
    profile: ProfileArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A .yaml or .json file. Default: YAML on standard output."
        ),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Write a version to a file that can be edited and registered again."""
    with client(address) as advisor:
        found = advisor.get_profile(profile, project=project).profile
        if output is None or output == STDOUT:
            typer.echo(format_profile(found.content, yaml=not as_json), nl=False)
            return
        with progress(f"writing {without_controls(str(output))}"):
            save_profile(found.content, output)
    if as_json:
        print_json({"output": str(output), "name": found.name, "digest": found.digest})
        return
    say(f"wrote [bold]{plain(str(output))}[/]  {plain(found.name)}")


def import_(
    files: Annotated[list[Path], typer.Argument(help="Files named after their profiles.")],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Register profiles under the names of their files, such as char-gpt.yaml as char-gpt."""
    with client(address) as advisor:
        # All files are checked before the first one is registered.
        contents = [(file, _checked(file)[0]) for file in files]
        for file, _ in contents:
            with _errors_name(file):
                parse_profile_name("name", profile_name(file.stem, project))
        registered = []
        for file, content in contents:
            response = advisor.register_profile(file.stem, content, project=project)
            registered.append(message_dict(response))
            if not as_json:
                print_registered(response)
    if as_json:
        print_json(registered)


def merge(
    files: Annotated[
        list[Path], typer.Argument(help="Recordings of the same training with different seeds.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .yaml or .json file.")],
    as_json: Json = False,
) -> None:
    """Merge recordings into one profile with geometric mean rates and the spread between seeds."""
    contents = [_checked(file)[1] for file in files]
    for file, recording in zip(files, contents, strict=True):
        for warning in recording.warnings():
            warn(f"{file}: {warning}")
    try:
        with progress(f"writing {without_controls(str(output))}"):
            content = content_to_proto(merged(contents))
            save_profile(content, output)
    except InvalidValueError as error:
        index = re.fullmatch(r"recordings\[(\d+)\]", error.field)
        fail(f"{files[int(index[1])]}: {error.description}" if index else str(error))
    except FslrError as error:
        fail(str(error))
    spread = spread_between_seeds(content) or Spread(0.0, 0.0)
    if as_json:
        print_json({
            "output": str(output),
            "recordings": content.provenance.recordings,
            "median_spread": spread.median,
            "largest_spread": spread.largest,
        })
        return
    recordings = count_of(content.provenance.recordings, "recording")
    say(
        f"wrote [bold]{plain(str(output))}[/]: {recordings}, median spread "
        f"{format_percent(spread.median, digits=1)}, largest "
        f"{format_percent(spread.largest, digits=1)}"
    )


def _checked(file: Path) -> tuple[profile_pb2.ProfileContent, ProfileContent]:
    """Return a file's message and content, or end the command with an error."""
    with _errors_name(file):
        try:
            with progress(f"reading {without_controls(str(file))}"):
                message = load_profile(file)
                return message, content_from_proto(message)
        except FslrError as error:
            fail(str(error))


@contextmanager
def _errors_name(file: Path) -> Iterator[None]:
    """End the command at an invalid value, with an error that starts with the file's name.

    Yields:
        Nothing.
    """
    try:
        yield
    except InvalidValueError as error:
        fail(f"{file}: {error}")

"""Shared by the commands: common options, and how results and errors are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from google.protobuf.message import Message
from pydantic import ValidationError
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.padding import Padding

from advisor.cli.progress import progress
from advisor.policy.control_characters import without_controls
from fslr import AdvisorClient, FslrError
from fslr.advisor.v1 import profile_service_pb2
from fslr.profile_files import message_to_fields
from fslr.resource_names import DEFAULT_PROJECT

Address = Annotated[
    str,
    typer.Option(
        "--address",
        "-a",
        envvar="ADVISOR_ADDRESS",
        help="host:port of the advisor service. FSLR_TLS_CA, FSLR_TLS_CERT and FSLR_TLS_KEY name "
        "the files for TLS; FSLR_TOKEN or FSLR_TOKEN_FILE provides the token.",
    ),
]
Project = Annotated[
    str,
    typer.Option(
        "--project", "-p", envvar="ADVISOR_PROJECT", help="Project that the names belong to."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MAX_INT64 = 2**63 - 1
LatestVersion = Annotated[
    int | None, typer.Option(min=1, max=MAX_INT64, help="Fail unless this is the latest version.")
]
LatestVersionOrNone = Annotated[
    int | None,
    typer.Option(
        min=0, max=MAX_INT64, help="Fail unless this is the latest version; 0: none exists."
    ),
]
DEFAULT_ADDRESS = "127.0.0.1:50051"
__all__ = ["DEFAULT_ADDRESS", "DEFAULT_PROJECT", "Address", "Json", "Project"]

console = Console(emoji=False)
STDOUT = Path("-")
"""As a file to write: standard output."""
_error_console = Console(stderr=True, emoji=False)

_Response = TypeVar("_Response")
SHORT_DIGEST_CHARACTERS = 12


def plain(text: str) -> str:
    """Return untrusted text for the terminal, without markup and control characters."""
    return escape(without_controls(text))


def say(message: str) -> None:
    """Print a line in the console's markup, without inserting line breaks, so paths stay whole."""
    console.print(message, soft_wrap=True)


def fail(message: str, *, status: int = 1) -> NoReturn:
    """Print an error and end the command.

    Args:
        message: The error.
        status: The exit status.

    Raises:
        Exit: Always.
    """
    _error_console.print(f"[bold red]error:[/] {plain(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def write_text(text: str, output: Path | None) -> None:
    """Write a text to a file and say so, or to standard output.

    Args:
        text: The text.
        output: The file; None or ``-``: standard output.

    Raises:
        Exit: The file cannot be written.
    """
    if output is None or output == STDOUT:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}")
    say(f"wrote [bold]{plain(str(output))}[/]")


def note(message: str) -> None:
    """Print a line to standard error, beside results that a program may read."""
    _error_console.print(plain(message), highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning to standard error."""
    _error_console.print(
        f"[bold yellow]warning:[/] {plain(message)}", highlight=False, soft_wrap=True
    )


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether to go on, unless the answer is known.

    Args:
        question: The question, ending with a question mark.
        yes: Whether the answer is yes.

    Raises:
        Exit: The answer is no, or standard input is no terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"{question} There is no terminal to answer on; add --yes")
    if not typer.confirm(without_controls(question)):
        raise typer.Exit(1)


def describe_setting_error(error: ValidationError) -> str:
    """Return the first problem of the settings in one line."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "tls"
    return f"setting {where}: {first['msg'].removeprefix('Value error, ')}"


class _ShownClient(AdvisorClient):
    """A client whose calls are shown in the terminal while they take long."""

    def _call(self, method: Callable[..., _Response], request: Any) -> _Response:
        with progress(f"waiting for {self.address}"):
            return super()._call(method, request)


@contextmanager
def client(address: str, *, status: int = 1) -> Iterator[AdvisorClient]:
    """Connect to the service; an error of the client ends the command with a message.

    Args:
        address: ``host:port`` of the service.
        status: The exit status after an error.

    Yields:
        The client.

    Raises:
        Exit: The service refused a call or does not answer.
    """
    try:
        with _ShownClient(address) as connected:
            yield connected
    except FslrError as error:
        fail(str(error), status=status)
    except UnicodeEncodeError as error:  # an argument with invalid bytes
        fail(f"{error.object!a} is not text; use UTF-8", status=status)
    except BrokenPipeError:  # the process that reads our output has ended
        sys.stderr.close()
        raise typer.Exit(0) from None


def print_message(message: Message) -> None:
    """Print a message as JSON, field names as in the proto."""
    print_json(message_dict(message))


def message_dict(message: Message) -> dict[str, Any]:
    """Return a message as plain data, field names as in the proto."""
    return message_to_fields(message)


def print_guideline(markdown: str) -> None:
    """Print a profile's guideline, if it has one."""
    if markdown:
        console.print(Padding(Markdown(without_controls(markdown)), (1, 2)))


def print_json(data: Any) -> None:
    """Print plain data as JSON."""
    with progress("writing JSON"):
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_registered(response: profile_service_pb2.RegisterProfileResponse) -> None:
    """Print that a profile was registered, or exists already, and warn of a doubtful recording."""
    verb = "registered" if response.created else "exists already, unchanged:"
    name, digest = response.profile.name, response.profile.digest
    say(f"{verb} [bold]{plain(name)}[/]  {digest[:SHORT_DIGEST_CHARACTERS]}")
    for warning in response.profile.warnings:
        warn(warning)


def date(time: datetime) -> str:
    """Return a time to the minute."""
    return f"{time:%Y-%m-%d %H:%M}"


def date_with_seconds(time: datetime) -> str:
    """Return a time to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S}"


def optional(value: float | None, form: Callable[[float], str]) -> str:
    """Return a value in a form for people, or nothing for None and 0."""
    return form(value) if value else ""

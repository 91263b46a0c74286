"""What the commands share: where the service is, how results and errors are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from google.protobuf.message import Message
from pydantic import ValidationError
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.padding import Padding

from advisor.policy import Policy
from advisor.policy.control_characters import without_controls
from advisor.wire import policy_to_proto
from fslr import AdvisorClient, FslrError
from fslr.advisor.v1 import policy_pb2
from fslr.profile_files import message_to_fields
from fslr.resource_names import DEFAULT_PROJECT

Address = Annotated[
    str,
    typer.Option(
        "--address",
        "-a",
        envvar="ADVISOR_ADDRESS",
        help="host:port of the advisor service; for TLS, FSLR_TLS_CA, FSLR_TLS_CERT and "
        "FSLR_TLS_KEY name files; FSLR_TOKEN or FSLR_TOKEN_FILE give a token.",
    ),
]
Project = Annotated[
    str, typer.Option("--project", "-p", envvar="ADVISOR_PROJECT", help="Project of short names.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DEFAULT_ADDRESS = "127.0.0.1:50051"
__all__ = ["DEFAULT_ADDRESS", "DEFAULT_PROJECT", "Address", "Json", "Project"]

console = Console(emoji=False)
_error_console = Console(stderr=True, emoji=False)

LARGEST = 2**63 - 1  # of a number in a message


def plain(text: str) -> str:
    """Return what somebody else wrote, for the terminal: no markup, no control characters."""
    return escape(without_controls(text))


def say(message: str) -> None:
    """Print a line in the console's markup; the terminal alone breaks it, so a path stays whole."""
    console.print(message, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Print an error and end the command with status 1.

    Raises:
        Exit: Always.
    """
    _error_console.print(f"[bold red]error:[/] {plain(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def setting_problem(error: ValidationError) -> str:
    """Return what is wrong with a setting, in words."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "tls"
    return f"setting {where}: {first['msg'].removeprefix('Value error, ')}"


@contextmanager
def client(address: str) -> Iterator[AdvisorClient]:
    """Give a client of the service; its errors end the command with a message.

    Yields:
        The client.

    Raises:
        Exit: The service refused or does not answer.
    """
    try:
        with AdvisorClient(address) as connected:
            yield connected
    except FslrError as error:
        fail(str(error))
    except UnicodeEncodeError as error:  # an argument that is no text
        fail(f"{error.object!a} is not text; use UTF-8")
    except BrokenPipeError:  # the reader of our output went away
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
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def rules_in_words(policy: policy_pb2.Policy) -> str:
    """Return the rules that are not the default, or that all are."""
    defaults = message_to_fields(policy_to_proto(Policy()), enum_words=True)
    rules = message_to_fields(policy, enum_words=True)
    own = {k: v for k, v in rules.items() if v != defaults.get(k)}
    words = (f"{k}={number(v) if isinstance(v, float) else str(v).lower()}" for k, v in own.items())
    return ", ".join(words) or "the defaults"


def enum_word(kind: Any, value: int) -> str:
    """Return an enum's value as words; one of a newer service as its number.

    Args:
        kind: The enum, as generated code has it.
        value: The number.
    """
    known = kind.DESCRIPTOR.values_by_number.get(value)
    if known is None:
        return str(value)
    prefix = kind.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(known.name).removeprefix(prefix).lower().replace("_", " ")


def short_name(resource_name: str) -> str:
    """Return the last segment of a resource name."""
    return resource_name.rsplit("/", 1)[-1]


def number(value: float) -> str:
    """Return a number with four significant digits."""
    return f"{value:.4g}"

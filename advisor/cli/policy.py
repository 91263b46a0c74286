"""``advisor policy``: the rules that profiles share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    LARGEST,
    Address,
    Json,
    Project,
    client,
    console,
    fail,
    message_dict,
    number,
    plain,
    print_json,
    print_message,
    rules_in_words,
    say,
    short_name,
)
from fslr import AdvisorClient, PolicyNotFoundError
from fslr.advisor.v1 import policy_pb2, policy_service_pb2
from fslr.profile_files import format_fields, load_fields, message_from_fields, message_to_fields

app = typer.Typer(help="Set the rules that profiles share, and try them.", no_args_is_help=True)

PolicyArgument = Annotated[
    str,
    typer.Argument(
        metavar="POLICY", help="Such as team or team@3.", autocompletion=completion.policies
    ),
]
Rules = Annotated[
    list[str] | None,
    typer.Option("--rule", "-r", metavar="NAME=VALUE", help="Such as slew_limit=2; repeatable."),
]


@app.command("set")
def set_(
    policy: Annotated[
        str,
        typer.Argument(metavar="POLICY", help="Such as team.", autocompletion=completion.policies),
    ],
    file: Annotated[Path | None, typer.Argument(help="All rules, as JSON or YAML.")] = None,
    rule: Rules = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Begin with the defaults, not with the latest version.")
    ] = False,
    expected_version: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST, help="Only if this is the latest version; 0: none is."),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Store a version of a policy: a file's rules, or the latest version's changed by --rule.

    What a file does not say is the default.
    """
    if file is None and not rule and not reset:
        fail("nothing to set; give a file of rules, --rule NAME=VALUE, or --reset for the defaults")
    with client(address) as advisor:
        latest = _latest(advisor, policy, project)
        fields: Any = {}
        if file is not None:
            fields = load_fields(file)
        elif latest is not None and not reset:
            fields = message_dict(latest.policy)
            if expected_version is None:  # nobody's change between reading and writing is lost
                expected_version = latest.version
        response = advisor.set_policy(
            policy, rules_of(fields, rule or []), expected_version=expected_version, project=project
        )
    if as_json:
        print_message(response)
        return
    verb = "set" if response.created else "there already, unchanged:"
    say(f"{verb} [bold]{plain(response.policy.name)}[/]")
    if response.created and latest is not None:
        console.print(_difference_table([latest, response.policy]))


def _latest(
    advisor: AdvisorClient, policy: str, project: str
) -> policy_service_pb2.PolicyVersion | None:
    try:
        return advisor.get_policy(policy, project=project)
    except PolicyNotFoundError:
        return None


@app.command("list")
def list_(
    address: Address = DEFAULT_ADDRESS, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """List the latest version of each policy, with the rules that are not the default."""
    with client(address) as advisor:
        policies = list(advisor.list_policies(project=project))
    if as_json:
        print_json([message_dict(policy) for policy in policies])
        return
    if not policies:
        say(f"no policies in project {plain(project)}; `advisor policy set` makes one")
        return
    table = Table("policy", "set", "rules that are not the default", box=box.SIMPLE)
    for policy in policies:
        table.add_row(
            plain(short_name(policy.name)),
            policy.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M"),
            plain(rules_in_words(policy.policy)) if policy.HasField("policy") else "unreadable",
        )
    console.print(table)


@app.command()
def show(
    policy: PolicyArgument,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Print a policy's rules as YAML, ready to be edited and set again."""
    with client(address) as advisor:
        found = advisor.get_policy(policy, project=project)
    if as_json:
        print_message(found)
        return
    typer.echo(f"# {found.name}")
    typer.echo(format_fields(message_to_fields(found.policy, enum_words=True), yaml=True), nl=False)


@app.command()
def diff(
    old: PolicyArgument,
    new: PolicyArgument,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show the rules in which two policies differ."""
    with client(address) as advisor:
        pair = [advisor.get_policy(name, project=project) for name in (old, new)]
    changed = _changed(pair)
    if as_json:
        print_json({key: {"old": a, "new": b} for key, (a, b) in changed.items()})
    elif not changed:
        say("the rules are the same")
    else:
        console.print(_difference_table(pair))


def _changed(pair: list[policy_service_pb2.PolicyVersion]) -> dict[str, tuple[Any, Any]]:
    rules = [message_to_fields(version.policy, enum_words=True) for version in pair]
    return {
        key: (rules[0].get(key), rules[1].get(key))
        for key in dict.fromkeys([*rules[0], *rules[1]])
        if rules[0].get(key) != rules[1].get(key)
    }


def _difference_table(pair: list[policy_service_pb2.PolicyVersion]) -> Table:
    table = Table("rule", *(plain(short_name(version.name)) for version in pair), box=box.SIMPLE)
    for key, (a, b) in _changed(pair).items():
        table.add_row(key, _word(a), _word(b))
    return table


def rules_of(fields: Any, given: list[str]) -> policy_pb2.Policy:
    """Return the rules of plain data and of NAME=VALUE pairs; a rule given `none` is left out."""
    if not isinstance(fields, dict):
        fail("the file holds no rules; write `slew_limit: 2` and the like")
    if wrong := [key for key in fields if not isinstance(key, str)]:
        fail(f"{wrong[0]!r} is no rule's name; put names in quotes that YAML takes for values")
    merged = dict(fields)
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            fail(f"--rule {pair} has no value; write {name}=VALUE")
        merged[name] = {"true": True, "false": False, "none": None}.get(value.lower(), value)
    return message_from_fields(
        {key: value for key, value in merged.items() if value is not None},
        policy_pb2.Policy(),
        "these are no rules of a policy",
    )


def _word(value: object) -> str:
    if value is None:
        return "[dim]none[/]"
    if isinstance(value, str):
        return plain(value)
    return number(value) if isinstance(value, float) else str(value).lower()

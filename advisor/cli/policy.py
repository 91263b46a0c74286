"""``advisor policy``: rules that profiles share."""

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
    Address,
    Json,
    LatestVersion,
    LatestVersionOrNone,
    Project,
    Yes,
    client,
    confirm,
    date,
    fail,
    message_dict,
    plain,
    print_json,
    print_message,
    say,
)
from advisor.cli.progress import counted
from advisor.cli.tables import print_table
from advisor.report.policies import PolicyRow, rule_changes
from advisor.report.words import format_rule, short_name
from fslr import AdvisorClient, PolicyNotFoundError
from fslr.advisor.v1 import policy_pb2, policy_service_pb2
from fslr.profile_files import format_fields, load_fields, message_from_fields, message_to_fields

app = typer.Typer(help="Set the rules that profiles share, and test them.", no_args_is_help=True)

PolicyArgument = Annotated[
    str,
    typer.Argument(
        metavar="POLICY",
        help="A policy, such as team or team@3.",
        autocompletion=completion.policies,
    ),
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        "-r",
        metavar="NAME=VALUE",
        help="A rule, such as slew_limit=2; none unsets it. Can be given several times.",
    ),
]


@app.command("set")
def set_(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY", help="A policy, such as team.", autocompletion=completion.policies
        ),
    ],
    file: Annotated[
        Path | None, typer.Argument(help="JSON or YAML file with all rules; others get defaults.")
    ] = None,
    rule: Rules = None,
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Start from the defaults instead of the latest version."),
    ] = False,
    expected_version: LatestVersionOrNone = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Store a new version of a policy, from a file or by changing rules of the latest version."""
    if file is None and not rule and not reset:
        fail("nothing to set; give a file with rules, --rule NAME=VALUE, or --reset for defaults")
    with client(address) as advisor:
        latest = _latest(advisor, policy, project)
        fields: Any = {}
        if file is not None:
            fields = load_fields(file)
        elif latest is not None and not reset:
            fields = message_dict(latest.policy)
            if expected_version is None:  # a change by someone else since then must not get lost
                expected_version = latest.version
        response = advisor.set_policy(
            policy,
            parse_rules(fields, rule or []),
            expected_version=expected_version,
            project=project,
        )
    if as_json:
        print_message(response)
        return
    verb = "set" if response.created else "exists already, unchanged:"
    say(f"{verb} [bold]{plain(response.policy.name)}[/]")
    if response.created and latest is not None:
        print_table(_changes_table(latest, response.policy))


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
    """List the latest version of each policy and the rules that differ from the default."""
    with client(address) as advisor:
        policies = list(counted(advisor.list_policies(project=project), "reading the policies"))
    if as_json:
        print_json([message_dict(policy) for policy in policies])
        return
    if not policies:
        say(f"no policies in project {plain(project)}; `advisor policy set` creates one")
        return
    table = Table("policy", "set", "rules that differ from the default", box=box.SIMPLE)
    for row in map(PolicyRow.of, policies):
        rules = "unreadable" if row.rules is None else plain(row.rules)
        table.add_row(plain(row.policy), date(row.create_time), rules)
    print_table(table)


@app.command()
def show(
    policy: PolicyArgument,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Print a policy's rules as YAML, which `policy set` accepts after editing."""
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
        versions = [advisor.get_policy(name, project=project) for name in (old, new)]
    changes = rule_changes(versions[0], versions[1])
    if as_json:
        print_json({change.rule: {"old": change.old, "new": change.new} for change in changes})
    elif not changes:
        say("the rules are the same")
    else:
        print_table(_changes_table(versions[0], versions[1]))


@app.command()
def delete(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY", help="A policy, such as team.", autocompletion=completion.policies
        ),
    ],
    expected_version: LatestVersion = None,
    yes: Yes = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Delete a policy with all its versions, unless a profile names it.

    Version numbers are never reused.
    """
    with client(address) as advisor:
        latest = advisor.get_policy(policy, project=project).version
        confirm(f"Delete policy {policy} (latest version {latest})?", yes=yes)
        advisor.delete_policy(policy, expected_version=expected_version, project=project)
    if as_json:
        print_json({"policy": policy, "deleted": True})
        return
    say(f"deleted [bold]{plain(policy)}[/]")


def _changes_table(
    old: policy_service_pb2.PolicyVersion, new: policy_service_pb2.PolicyVersion
) -> Table:
    names = (plain(short_name(version.name)) for version in (old, new))
    table = Table("rule", *names, box=box.SIMPLE)
    for change in rule_changes(old, new):
        table.add_row(change.rule, _rule(change.old), _rule(change.new))
    return table


def parse_rules(fields: Any, given: list[str]) -> policy_pb2.Policy:
    """Return the policy from plain data and NAME=VALUE pairs; the value ``none`` unsets a rule."""
    if not isinstance(fields, dict):
        fail("the file contains no rules; write lines such as `slew_limit: 2`")
    if wrong := [key for key in fields if not isinstance(key, str)]:
        fail(f"{wrong[0]!r} is not a rule's name; quote names that YAML reads as values")
    merged = dict(fields)
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            fail(f"--rule {pair} has no value; write {name}=VALUE")
        merged[name] = {"true": True, "false": False, "none": None}.get(value.lower(), value)
    return message_from_fields(
        {key: value for key, value in merged.items() if value is not None},
        policy_pb2.Policy(),
        "not a valid policy",
    )


def _rule(value: object) -> str:
    return "[dim]none[/]" if value is None else plain(format_rule(value))

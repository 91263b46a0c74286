"""``advisor policy``: the rules that profiles share."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from advisor.advice import LoadedProfile
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
    print_json,
    print_message,
    short_name,
)
from advisor.names import ProfileReference
from advisor.policy import InvalidValueError, LayoutMismatchError, Policy, Reference
from advisor.profiles import VersionInfo
from advisor.replay import Replayed, replay
from advisor.rpc.convert import content_from, measurement_from, opening_from, policy_from, policy_to
from fslr import AdvisorClient
from fslr.advisor.v1 import policy_pb2
from fslr.profile_files import formatted, load_fields, message_of

app = typer.Typer(help="Set the rules that profiles share, and try them.", no_args_is_help=True)

_NEWEST = 10  # runs that are tried where none is named

PolicyArgument = Annotated[str, typer.Argument(metavar="POLICY", help="Such as team or team@3.")]
Rules = Annotated[
    list[str] | None,
    typer.Option("--rule", "-r", metavar="NAME=VALUE", help="Such as slew_limit=2; repeatable."),
]


@app.command("set")
def set_(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Such as team.")],
    file: Annotated[Path | None, typer.Argument(help="Rules as JSON or YAML.")] = None,
    rule: Rules = None,
    expected_version: Annotated[
        int | None, typer.Option(min=0, help="Only if this is the latest version; 0: none is.")
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Store a version of a policy: the rules of a file, then those of --rule; others default."""
    with client(address) as advisor:
        rules = _rules({} if file is None else load_fields(file), rule or [])
        response = advisor.set_policy(
            policy, rules, expected_version=expected_version, project=project
        )
    if as_json:
        print_message(response)
        return
    verb = "set" if response.created else "there already, unchanged:"
    console.print(f"{verb} [bold]{escape(response.policy.name)}[/]")


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
        console.print(f"no policies in project {escape(project)}; `advisor policy set` makes one")
        return
    table = Table("policy", "set", "rules that are not the default", box=box.SIMPLE)
    defaults = message_dict(policy_to(Policy()))
    for policy in policies:
        rules = message_dict(policy.policy)
        table.add_row(
            escape(short_name(policy.name)),
            policy.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M"),
            ", ".join(f"{k}={_word(v)}" for k, v in rules.items() if v != defaults.get(k)),
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
    typer.echo(formatted(message_dict(found.policy), yaml=True), nl=False)


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
    rules = [message_dict(version.policy) for version in pair]
    changed = {
        key: (rules[0].get(key), rules[1].get(key))
        for key in dict.fromkeys([*rules[0], *rules[1]])
        if rules[0].get(key) != rules[1].get(key)
    }
    if as_json:
        print_json({key: {"old": a, "new": b} for key, (a, b) in changed.items()})
        return
    if not changed:
        console.print("the rules are the same")
        return
    table = Table("rule", *(escape(short_name(version.name)) for version in pair), box=box.SIMPLE)
    for key, (a, b) in changed.items():
        table.add_row(key, _word(a), _word(b))
    console.print(table)


@app.command("try")
def try_(
    policy: Annotated[str, typer.Argument(help="A policy, or a JSON or YAML file of rules.")],
    run: Annotated[list[str] | None, typer.Option(help="A stored run; repeatable.")] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show what stored runs would have been told under another policy. Default: the newest 10."""
    with client(address) as advisor:
        if Path(policy).is_file():
            rules = _rules(load_fields(policy), [])
        else:
            rules = advisor.get_policy(policy, project=project).policy
        newest = islice(advisor.list_runs(project=project), _NEWEST)
        names = run or [short_name(stored.name) for stored in newest]
        if not names:
            fail(f"there is no stored run in project {project}; attach a job with run=...")
        try:
            tried = {name: _tried(advisor, name, project, policy_from(rules)) for name in names}
        except (InvalidValueError, LayoutMismatchError) as error:
            fail(str(error))
    if as_json:
        print_json({
            name: [
                {
                    "step": event.step,
                    "before": event.before.multipliers.tolist(),
                    "after": event.after.multipliers.tolist(),
                    "next_before": event.before.next_measurement_step,
                    "next_after": event.after.next_measurement_step,
                }
                for event in events
            ]
            for name, events in tried.items()
        })
        return
    for name, events in tried.items():
        console.print(_tried_table(name, events))


def _tried(advisor: AdvisorClient, run: str, project: str, policy: Policy) -> list[Replayed]:
    summary = advisor.get_run(run, project=project)
    opening = opening_from(summary.opening)
    events = list(advisor.run_history(run, project=project))
    if not events:
        return []
    answer = events[-1].recommendation
    version = advisor.get_profile(answer.profile).profile
    content = content_from(version.content)
    profile = content.profile()
    reference = ProfileReference.parse("profile", version.name)
    info = VersionInfo(
        reference.name, version.version, version.digest, version.create_time.ToDatetime()
    )
    loaded = LoadedProfile(info, profile, Reference(profile), content.header.provenance)
    before = opening.policy or profile.policy
    if answer.policy:
        before = policy_from(advisor.get_policy(answer.policy).policy)
    return replay(
        loaded,
        opening,
        [
            measurement_from(e.measurement, opening)
            for e in events
            if e.recommendation.digest == version.digest
        ],
        policy,
        before,
    )


def _tried_table(name: str, events: list[Replayed]) -> Table:
    table = Table(
        "step", "groups changed", "largest factor", "median before", "median after", "next before",
        "next after", box=box.SIMPLE, title=f"run {escape(name)}", title_justify="left",
    )  # fmt: skip
    for event in events:
        multipliers = (event.before.multipliers, event.after.multipliers)
        table.add_row(
            str(event.step),
            f"{event.changed} of {len(event.before.multipliers)}",
            number(event.largest_factor),
            *(number(float(sorted(m)[len(m) // 2])) for m in multipliers),
            str(event.before.next_measurement_step),
            str(event.after.next_measurement_step),
        )
    return table


def _rules(fields: Any, given: list[str]) -> policy_pb2.Policy:
    """Return the rules of plain data and of NAME=VALUE pairs."""
    if not isinstance(fields, dict):
        fail("the file holds no rules; write `slew_limit: 2` and the like")
    merged = dict(fields)
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            fail(f"--rule {pair} has no value; write {name}=VALUE")
        merged[name] = {"true": True, "false": False}.get(value.lower(), value)
    return message_of(
        {key: _enum_name(key, value) for key, value in merged.items()},
        policy_pb2.Policy(),
        "these are no rules of a policy",
    )


def _enum_name(key: str, value: Any) -> Any:
    """Let people write `depth_rule: sum`."""
    if key.endswith(("_rule", "alignment")) and isinstance(value, str):
        word = value.upper().replace(" ", "_").replace("-", "_")
        return word if word.startswith(key.upper()) else f"{key.upper()}_{word}"
    return value


def _word(value: object) -> str:
    if value is None:
        return "[dim]none[/]"
    if isinstance(value, str):
        for prefix in ("DEPTH_RULE_", "ALIGNMENT_", "UNMATCHED_RULE_"):
            value = value.removeprefix(prefix)
        return escape(value.lower().replace("_", " "))
    return number(value) if isinstance(value, float) else str(value).lower()

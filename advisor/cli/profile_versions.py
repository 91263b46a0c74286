"""``advisor profile alias|delete|diff``: the life of versions."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    message_dict,
    number,
    plain,
    print_json,
    print_message,
    short_name,
)
from advisor.cli.profile import ProfileArgument
from fslr.advisor.v1 import profile_pb2

_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 24  # most characters of a sparkline


def alias(
    profile: ProfileArgument,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as prod.")],
    delete: Annotated[bool, typer.Option("--delete", help="Take the alias away.")] = False,
    etag: Annotated[
        str, typer.Option(help="Only if the alias did not move since it was read with this etag.")
    ] = "",
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Let an alias name a version, from one moment to the next for all runs to come."""
    with client(address) as advisor:
        if delete:
            advisor.delete_alias(profile, name, etag=etag, project=project)
            console.print(f"alias [bold]{plain(name)}[/] of {plain(profile)} is gone")
            return
        response = advisor.set_alias(profile, name, etag=etag, project=project)
    if as_json:
        print_message(response)
        return
    before = response.previous_version
    console.print(
        f"[bold]{plain(name)}[/] names {plain(short_name(response.profile.name))} now"
        + (f", it named @{before}" if before else ", it is new")
        + f"  [dim]etag {response.alias.etag}[/]"
    )


def delete(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE@VERSION", help="One version, such as char-gpt@3.")
    ],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Remove one version that no alias names; its number is never given again."""
    with client(address) as advisor:
        advisor.delete_profile(profile, project=project)
    console.print(f"deleted [bold]{plain(profile)}[/]")


def diff(
    old: Annotated[str, typer.Argument(help="Such as char-gpt@1.")],
    new: Annotated[str, typer.Argument(help="Such as char-gpt@2, or another profile.")],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show two versions side by side: what they say, and the ratio of their rates over training."""
    with client(address) as advisor:
        pair = [advisor.get_profile(name, project=project).profile for name in (old, new)]
    facts = _changed_facts(pair[0].content, pair[1].content)
    rates = _changed_rates(pair[0].content, pair[1].content)
    if as_json:
        print_json({
            "old": pair[0].name,
            "new": pair[1].name,
            "changed": {key: {"old": a, "new": b} for key, (a, b) in facts.items()},
            "ratios": {name: ratios for name, (_, _, ratios) in rates.items()},
            "only_old": _only(pair[0].content, pair[1].content),
            "only_new": _only(pair[1].content, pair[0].content),
        })
        return
    names = [plain(short_name(version.name)) for version in pair]
    if pair[0].digest == pair[1].digest:
        console.print(f"{names[0]} and {names[1]} say the same")
        return
    table = Table(Column("", overflow="fold"), *names, box=box.SIMPLE, title_justify="left")
    for key, (a, b) in facts.items():
        table.add_row(key, plain(a), plain(b))
    if facts:
        console.print(table)
    for which, other, name in ((0, 1, names[0]), (1, 0, names[1])):
        if only := _only(pair[which].content, pair[other].content):
            console.print(f"only in {name}: {plain(', '.join(only))}")
    console.print(_rates_table(rates, names))


def _changed_facts(
    old: profile_pb2.ProfileContent, new: profile_pb2.ProfileContent
) -> dict[str, tuple[str, str]]:
    """Return the words and numbers that differ, apart from rates."""
    flat = [_flat(content) for content in (old, new)]
    keys = list(dict.fromkeys([*flat[0], *flat[1]]))
    both = {key: (flat[0].get(key, ""), flat[1].get(key, "")) for key in keys}
    return {key: (a, b) for key, (a, b) in both.items() if a != b}


def _flat(content: profile_pb2.ProfileContent) -> dict[str, str]:
    fields = message_dict(content)
    flat = {
        "base learning rate": number(content.base_learning_rate),
        "total steps": str(content.total_steps),
        "recorded points": str(len(content.points)),
        "groups": str(len(content.layout.groups)),
        "docs": content.docs,
    }
    for part in ("provenance", "policy", "labels"):
        for key, value in fields.get(part, {}).items():
            text = number(value) if isinstance(value, float) else str(value)
            flat[f"{part} {key.replace('_', ' ')}"] = text
    return flat


def _only(one: profile_pb2.ProfileContent, other: profile_pb2.ProfileContent) -> list[str]:
    there = {group.name for group in other.layout.groups}
    return [group.name for group in one.layout.groups if group.name not in there]


_Rates = dict[str, tuple[float, float, list[float]]]


def _changed_rates(old: profile_pb2.ProfileContent, new: profile_pb2.ProfileContent) -> _Rates:
    """Return for each common group the median rates and the ratios at the common steps."""
    steps = [{point.step: point for point in content.points} for content in (old, new)]
    common = sorted(steps[0].keys() & steps[1].keys())
    places = {group.name: i for i, group in enumerate(new.layout.groups)}
    changed: _Rates = {}
    for i, group in enumerate(old.layout.groups):
        if group.name not in places or not common:
            continue
        pairs = [
            (steps[0][s].unit_rates[i], steps[1][s].unit_rates[places[group.name]]) for s in common
        ]
        ratios = [b / a if a > 0 else 0.0 for a, b in pairs]
        middle = len(pairs) // 2
        changed[group.name] = (
            sorted(a for a, _ in pairs)[middle],
            sorted(b for _, b in pairs)[middle],
            ratios,
        )
    return changed


def _rates_table(rates: _Rates, names: Sequence[str]) -> Table:
    table = Table(
        Column("group", overflow="fold"),
        *names,
        "new / old",
        Column("over training", no_wrap=True),
        box=box.SIMPLE,
        title="unit rates (median) and their ratio",
        title_justify="left",
    )
    if not rates:
        table.caption = "no step is recorded in both"
    for name, (a, b, ratios) in rates.items():
        table.add_row(
            plain(name), number(a), number(b), number(b / a) if a > 0 else "", sparkline(ratios)
        )
    return table


def sparkline(ratios: Sequence[float]) -> str:
    """Return ratios as bars on a logarithmic scale, a half to the double; 1 is in the middle."""
    every = max(1, math.ceil(len(ratios) / _SPARKS))
    bars = ""
    for ratio in ratios[::every]:
        if ratio <= 0:
            bars += " "
            continue
        height = (math.log2(ratio) + 1) / 2 * (len(_BARS) - 1)
        bars += _BARS[min(max(round(height), 0), len(_BARS) - 1)]
    return bars

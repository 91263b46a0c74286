"""``advisor profile diff``: two versions side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import typer
from rich import box
from rich.table import Column, Table

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Json,
    Project,
    client,
    plain,
    print_json,
    say,
)
from advisor.cli.name_cells import NameCell
from advisor.cli.tables import print_table
from advisor.report.profile_diff import ProfileDifference, profile_difference
from advisor.report.words import format_number

_BARS = "▁▂▃▄▅▆▇█"
_MAX_BARS = 24


def diff(
    old: Annotated[
        str,
        typer.Argument(help="A version, such as char-gpt@1.", autocompletion=completion.profiles),
    ],
    new: Annotated[
        str,
        typer.Argument(
            help="A version to compare with, such as char-gpt@2, or a different profile.",
            autocompletion=completion.profiles,
        ),
    ],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show how two versions differ, and the ratio of their unit rates over training."""
    with client(address) as advisor:
        versions = [advisor.get_profile(name, project=project).profile for name in (old, new)]
    difference = profile_difference(versions[0], versions[1])
    if as_json:
        print_json({
            "old": versions[0].name,
            "new": versions[1].name,
            "same": difference.is_same,
            "changed": {
                fact.label: {"old": fact.old, "new": fact.new} for fact in difference.facts
            },
            "ratios": {row.group: list(row.ratios) for row in difference.rates},
            "only_old": list(difference.only_old),
            "only_new": list(difference.only_new),
        })
    else:
        _print(difference)


def _print(difference: ProfileDifference) -> None:
    old, new = plain(difference.old), plain(difference.new)
    if difference.is_same:
        say(f"{old} and {new} have the same content")
        return
    table = Table(Column("", overflow="fold"), old, new, box=box.SIMPLE)
    for fact in difference.facts:
        table.add_row(plain(fact.label), *map(plain, fact.words()))
    if difference.facts:
        print_table(table)
    for names, version in ((difference.only_old, old), (difference.only_new, new)):
        if names:
            say(f"only in {version}: {plain(', '.join(names))}")
    print_table(_rates_table(difference))


def _rates_table(difference: ProfileDifference) -> Table:
    table = Table(
        Column("group", overflow="fold"), plain(difference.old), plain(difference.new),
        "new / old", Column("over training", no_wrap=True),
        box=box.SIMPLE, title="unit rates (median over training) and their ratio",
        title_justify="left", caption_justify="left",
        caption="bars: one half (lowest) to double (highest), on a logarithmic scale",
    )  # fmt: skip
    if not difference.rates:
        table.caption = "no step is recorded in both versions"
    for row in difference.rates:
        table.add_row(
            NameCell(row.group),
            format_number(row.old_median),
            format_number(row.new_median),
            "-" if row.ratio is None else format_number(row.ratio),
            sparkline(row.ratios),
        )
    return table


def sparkline(ratios: Sequence[float | None]) -> str:
    """Return ratios as bars on a logarithmic scale from one half to double; 1 is in the middle.

    Longer series are averaged. An unknown ratio is a blank, a ratio of zero the lowest bar.
    """
    width = max(1, math.ceil(len(ratios) / _MAX_BARS))
    bars = ""
    for start in range(0, len(ratios), width):
        known = [ratio for ratio in ratios[start : start + width] if ratio is not None]
        if not known:
            bars += " "
            continue
        height = math.fsum(map(_height, known)) / len(known)
        bars += _BARS[min(max(round(height), 0), len(_BARS) - 1)]
    return bars


def _height(ratio: float) -> float:
    logarithm = max(min(math.log2(ratio), 1.0), -1.0) if ratio > 0 else -1.0
    return (logarithm + 1) / 2 * (len(_BARS) - 1)

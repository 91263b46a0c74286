"""``advisor profile diff``: two versions side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

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
    console,
    number,
    plain,
    print_json,
    say,
    short_name,
)
from advisor.policy import Policy
from advisor.wire import policy_to_proto
from fslr.advisor.v1 import profile_pb2
from fslr.profile_files import message_to_fields

_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 24  # most characters of a sparkline

_Facts = dict[str, tuple[Any, Any]]
_Rates = dict[str, tuple[float, float, list[float | None]]]


def diff(
    old: Annotated[
        str, typer.Argument(help="Such as char-gpt@1.", autocompletion=completion.profiles)
    ],
    new: Annotated[
        str,
        typer.Argument(
            help="Such as char-gpt@2, or another profile.", autocompletion=completion.profiles
        ),
    ],
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show two versions side by side: what they say, and the ratio of their rates over training."""
    with client(address) as advisor:
        pair = [advisor.get_profile(name, project=project).profile for name in (old, new)]
    contents = pair[0].content, pair[1].content
    facts, rates = changed_facts(*contents), changed_rates(*contents)
    only = _only(*contents), _only(contents[1], contents[0])
    if as_json:
        print_json({
            "old": pair[0].name,
            "new": pair[1].name,
            "same": pair[0].digest == pair[1].digest,
            "changed": {key: {"old": a, "new": b} for key, (a, b) in facts.items()},
            "ratios": {name: ratios for name, (_, _, ratios) in rates.items()},
            "only_old": only[0],
            "only_new": only[1],
        })
        return
    names = [plain(short_name(version.name)) for version in pair]
    if pair[0].digest == pair[1].digest:
        say(f"{names[0]} and {names[1]} say the same")
        return
    table = Table(Column("", overflow="fold"), *names, box=box.SIMPLE)
    for key, (a, b) in facts.items():
        table.add_row(plain(key), *(plain(word) for word in _told_apart(a, b)))
    if facts:
        console.print(table)
    for own, name in zip(only, names, strict=True):
        if own:
            say(f"only in {name}: {plain(', '.join(own))}")
    console.print(_rates_table(rates, names))


def changed_facts(old: profile_pb2.ProfileContent, new: profile_pb2.ProfileContent) -> _Facts:
    """Return all that differs between two contents, apart from unit rates; None: not said."""
    flat = dict(_flat(old)), dict(_flat(new))
    if bool(old.policy_name) != bool(new.policy_name):
        # Only one has rules of its own; those that are the default are not worth a line.
        defaults = dict(_flat(profile_pb2.ProfileContent(policy=policy_to_proto(Policy()))))
        for own in flat:
            for key in [key for key in own if key.startswith("policy ") and key != "policy name"]:
                if own[key] == defaults.get(key):
                    del own[key]
    keys = list(dict.fromkeys([*flat[0], *flat[1]]))
    both = {key: (flat[0].get(key), flat[1].get(key)) for key in keys}
    return {key: (a, b) for key, (a, b) in both.items() if a != b}


def _flat(content: profile_pb2.ProfileContent) -> Iterator[tuple[str, Any]]:
    fields = message_to_fields(content, enum_words=True)
    layout, points = fields.pop("layout", {}), fields.pop("points", [])
    fields["groups"] = len(layout.get("groups", []))
    fields["order_of_groups"] = [group["name"] for group in layout.get("groups", [])]
    fields["role_templates"] = layout.get("role_templates", [])
    fields["frozen_names"] = layout.get("frozen_names", [])
    fields["frozen_parameter_counts"] = layout.get("frozen_parameter_counts", [])
    fields["recorded_steps"] = [point["step"] for point in points]
    for name in ("learning_rate", "relative_errors", "coherences", "spreads"):
        fields[f"points_{name}"] = [point.get(name) for point in points]
    for group in layout.get("groups", []):
        place = {key: value for key, value in group.items() if key != "name"}
        fields[f"group {group['name']}"] = ", ".join(f"{k} {v}" for k, v in place.items())
    for key, value in fields.items():
        words = key.replace("_", " ") if not key.startswith("group ") else key
        if isinstance(value, dict):
            for inner, entry in value.items():
                yield f"{words} {inner.replace('_', ' ')}", entry
        else:
            yield words, value


def _told_apart(one: Any, other: Any) -> tuple[str, str]:
    """Return two different values in as few digits as show that they are."""
    words = _word(one), _word(other)
    if words[0] != words[1]:
        return words
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip(_values(one), _values(other), strict=False)
        count = sum(a != b for a, b in pairs)
        return words[0], f"{words[0]}, {count} of them others"
    return repr(one), repr(other)


def _values(nested: Any) -> list[Any]:
    if not isinstance(nested, list):
        return [nested]
    return [value for item in nested for value in _values(item)]


def _word(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return number(value)
    if not isinstance(value, list):
        return str(value)
    flat = [item for item in _values(value) if item is not None]
    if len(flat) <= 4 and not any(isinstance(item, (list, dict)) for item in value):
        return ", ".join(map(_word, flat)) or "-"
    numbers = [item for item in flat if isinstance(item, (int, float))]
    if len(numbers) < len(flat):
        return f"{len(flat)} entries"
    return f"{len(flat)} values, median {number(statistics.median(numbers))}"


def _only(one: profile_pb2.ProfileContent, other: profile_pb2.ProfileContent) -> list[str]:
    there = {group.name for group in other.layout.groups}
    return [group.name for group in one.layout.groups if group.name not in there]


def changed_rates(old: profile_pb2.ProfileContent, new: profile_pb2.ProfileContent) -> _Rates:
    """Return of each common group the median rates and the ratios at the common steps.

    A ratio to a rate of zero is None.
    """
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
        middle = len(pairs) // 2
        changed[group.name] = (
            sorted(a for a, _ in pairs)[middle],
            sorted(b for _, b in pairs)[middle],
            [b / a if a > 0 else None for a, b in pairs],
        )
    return changed


def _rates_table(rates: _Rates, names: Sequence[str]) -> Table:
    table = Table(
        Column("group", overflow="fold"), *names, "new / old",
        Column("over training", no_wrap=True),
        box=box.SIMPLE, title="unit rates (median over training) and their ratio",
        title_justify="left", caption_justify="left",
        caption="bars: a half (lowest) to the double (highest), on a logarithmic scale",
    )  # fmt: skip
    if not rates:
        table.caption = "no step is recorded in both"
    for name, (a, b, ratios) in rates.items():
        table.add_row(
            plain(name), number(a), number(b), number(b / a) if a > 0 else "-", sparkline(ratios)
        )
    return table


def sparkline(ratios: Sequence[float | None]) -> str:
    """Return ratios as bars on a logarithmic scale, a half to the double; 1 is in the middle.

    Longer series are averaged; a ratio that is not known is a blank, one of zero the lowest bar.
    """
    every = max(1, math.ceil(len(ratios) / _SPARKS))
    bars = ""
    for start in range(0, len(ratios), every):
        known = [ratio for ratio in ratios[start : start + every] if ratio is not None]
        if not known:
            bars += " "
            continue
        height = math.fsum(map(_height, known)) / len(known)
        bars += _BARS[min(max(round(height), 0), len(_BARS) - 1)]
    return bars


def _height(ratio: float) -> float:
    logarithm = max(min(math.log2(ratio), 1.0), -1.0) if ratio > 0 else -1.0
    return (logarithm + 1) / 2 * (len(_BARS) - 1)

"""What a run's multipliers and settings come from, as a table for people."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence

from fslr.training.group_advice import GroupAdvice
from fslr.training.initial_scaling import range_of

_SEPARATOR = "  "
_INDENT = "  "
_MAX_WIDTH = 80  # characters of a line
_PART_OF_NAME = re.compile(r"[^./]*[./]?")
_COLUMNS: Mapping[str, Callable[[GroupAdvice], float | None]] = {
    "multiplier": lambda advice: advice.multiplier,
    "recipe": lambda advice: _setting(advice, "learning_rate"),
    "measured": lambda advice: advice.measured,
    "decay": lambda advice: _setting(advice, "weight_decay"),
    "epsilon": lambda advice: _setting(advice, "epsilon"),
    "1-beta1": lambda advice: _setting(advice, "one_minus_beta1"),
    "1-beta2": lambda advice: _setting(advice, "one_minus_beta2"),
    "initial": lambda advice: advice.initial_factor,
}
_ALWAYS = {"multiplier", "recipe", "measured"}


def explanation(advice: Mapping[str, GroupAdvice], title: str, roles: Sequence[str]) -> str:
    """Return a table with a row for each role.

    Args:
        advice: What is known about each group, by its name, in layout order.
        title: The first line.
        roles: The role of each group.

    Returns:
        Lines of text. ``recipe`` and ``measured`` are factors on the learning rate: what the recipe
        says, and the profile's unit rate divided by the measured one. Columns in which nothing
        changes are left out; ``-``: not known. If a line would be longer than 80 characters, names
        have lines of their own, and the cells are below them, in as many lines as they need.
    """
    rows: dict[str, list[GroupAdvice]] = {}
    for role, of_group in zip(roles, advice.values(), strict=True):
        rows.setdefault(role, []).append(of_group)
    columns = {
        name: [_range(map(value, groups)) for groups in rows.values()]
        for name, value in _COLUMNS.items()
        if name in _ALWAYS
        or any(value(of_group) not in {None, 1.0} for of_group in advice.values())
    }
    outcomes = [_outcomes(groups) for groups in rows.values()]
    names = [f"{name} ({len(groups)})" for name, groups in rows.items()]
    table = {"groups": names, **columns}
    if any(outcome != "-" for outcome in outcomes):
        table["outcome"] = outcomes
    return "\n".join((title, *_aligned(table, _widths(table))))


def _aligned(table: Mapping[str, Sequence[str]], widths: Mapping[str, int]) -> list[str]:
    """Return the lines of a table, whose first column are the groups' names."""
    rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    head = {name: name for name in table}
    if sum(widths.values()) + len(_SEPARATOR) * (len(widths) - 1) <= _MAX_WIDTH:
        return [_line(row, widths) for row in (head, *rows)]
    first, *others = table
    parts = _parts({name: widths[name] for name in others})
    return [
        line
        for row in (head, *rows)
        for line in (
            *_wrapped_name(row[first]),
            *(line for part in parts for line in _wrapped(_line(row, part))),
        )
    ]


def _widths(table: Mapping[str, Sequence[str]]) -> dict[str, int]:
    return {name: max(map(len, (name, *cells))) for name, cells in table.items()}


def _parts(widths: Mapping[str, int]) -> list[dict[str, int]]:
    """Return the columns in parts, each of which fits in an indented line unless it has one."""
    parts: list[dict[str, int]] = []
    left = 0
    for name, width in widths.items():
        if not parts or len(_SEPARATOR) + width > left:
            parts.append({})
            left = _MAX_WIDTH - len(_INDENT) + len(_SEPARATOR)
        parts[-1][name] = width
        left -= len(_SEPARATOR) + width
    return parts


def _wrapped(line: str) -> list[str]:
    """Return an indented line of cells, which is longer than allowed only if it is one cell."""
    if len(_INDENT) + len(line) <= _MAX_WIDTH:
        return [_INDENT + line]
    return textwrap.wrap(
        line,
        _MAX_WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _wrapped_name(name: str) -> list[str]:
    """Return a group's name in lines, which end at dots or slashes."""
    lines = [""]
    for part in filter(None, _PART_OF_NAME.findall(name)):
        if len(lines[-1]) + len(part) > _MAX_WIDTH and lines[-1].strip():
            lines.append(2 * _INDENT)
        lines[-1] += part
    return lines


def _setting(advice: GroupAdvice, name: str) -> float | None:
    return None if advice.recipe is None else float(getattr(advice.recipe, name))


def _range(values: Iterable[float | None]) -> str:
    return range_of(value for value in values if value is not None) or "-"


def _outcomes(groups: Sequence[GroupAdvice]) -> str:
    found = dict.fromkeys(advice.outcome for advice in groups if advice.outcome is not None)
    return ", ".join(found) or "-"


def _line(row: Mapping[str, str], widths: Mapping[str, int]) -> str:
    """Return the cells of some columns, each as wide as its column."""
    return _SEPARATOR.join(row[name].ljust(width) for name, width in widths.items()).rstrip()

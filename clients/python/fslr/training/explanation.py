"""What a run's multipliers and settings come from, as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from fslr.training.group_advice import GroupAdvice
from fslr.training.initial_scaling import range_of, role_of

_SEPARATOR = "  "
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


def explanation(advice: Mapping[str, GroupAdvice], title: str) -> str:
    """Return a table with a row for the groups whose names differ in their numbers only.

    Args:
        advice: What is known about each group, by its name, in layout order.
        title: The first line.

    Returns:
        Lines of text. ``recipe`` and ``measured`` are factors on the learning rate: what the recipe
        says, and the profile's unit rate divided by the measured one. Columns in which nothing
        changes are left out; ``-``: not known.
    """
    rows: dict[str, list[GroupAdvice]] = {}
    for name, of_group in advice.items():
        rows.setdefault(role_of(name), []).append(of_group)
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
    widths = {name: max(map(len, (name, *cells))) for name, cells in table.items()}
    lines = [title, _line(table.keys(), widths)]
    lines += [_line(cells, widths) for cells in zip(*table.values(), strict=True)]
    return "\n".join(lines)


def _setting(advice: GroupAdvice, name: str) -> float | None:
    return None if advice.recipe is None else float(getattr(advice.recipe, name))


def _range(values: Iterable[float | None]) -> str:
    return range_of(value for value in values if value is not None) or "-"


def _outcomes(groups: Sequence[GroupAdvice]) -> str:
    found = dict.fromkeys(advice.outcome for advice in groups if advice.outcome is not None)
    return ", ".join(found) or "-"


def _line(cells: Iterable[str], widths: Mapping[str, int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths.values(), strict=True))
    return _SEPARATOR.join(padded).rstrip()

"""The verdicts on our methods on the results page: against alternatives, and as the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.report.methods import SPOKEN, axis_name
from benchmarks.transfer.cases import AXES
from benchmarks.transfer.choice import NEEDED
from benchmarks.transfer.comparisons import EVERY_AXIS, OURS
from benchmarks.transfer.methods import DEFAULT
from benchmarks.transfer.printing import difference_text
from benchmarks.transfer.records import is_choosing

_Record = Mapping[str, Any]
_ARE_COMPARED = """\
Ours against the alternative that does best on each axis. The difference is that of the mean
regrets, in nats, by seed; a negative one is better. `cases like these` judges with an interval from
a bootstrap of cases and of their seeds. With few cases it is wide, so `these cases` judges with the
noise of seeds only, and the last column counts single cases. An alternative is considered where it
has at least half of the cases."""


def verdicts(figures: _Record) -> str:
    """Return the tables of verdicts of our methods on each axis.

    Args:
        figures: The content of ``transfer.json``.
    """
    parts = [verdict_sentence(figures), _ARE_COMPARED]
    for method in OURS:
        rows = [row for row in figures["axes"] if row["is_best_alternative"]]
        own = [row for row in rows if ours_of(row) == method and not _is_repeated(row, rows)]
        if own:
            parts.append(_table(method, own))
    return "\n\n".join(parts)


def verdict_sentence(figures: _Record) -> str:
    """Return on which axes the default method is better or worse than the best alternative.

    Args:
        figures: The content of ``transfer.json``.
    """
    rows = [
        row
        for row in figures["axes"]
        if row["is_best_alternative"] and row["axis"] != EVERY_AXIS and ours_of(row) == DEFAULT
    ]
    claiming = [row for row in rows if row["case_set"] == "claiming"]
    if not claiming:
        return f"No claiming case has been measured with {SPOKEN[DEFAULT]} and an alternative."
    measured = {row["axis"] for row in claiming}
    without = ", ".join(axis_name(axis) for axis in AXES if axis not in measured)
    every = [row for row in rows if row["case_set"] == "all"]
    return (
        f"Against the alternative that does best on each axis, {SPOKEN[DEFAULT]} is better beyond "
        f"the noise of seeds for: {_axes(claiming, 'better')}. It is worse for: "
        f"{_axes(claiming, 'worse')}. These cases do not decide for: "
        f"{_axes(claiming, 'cannot tell')}. Over all cases, those that chose the method included, "
        f"it is worse for: {_axes(every, 'worse')}."
        + (f" Not measured in claiming cases: {without}." if without else "")
    )


def _axes(rows: Sequence[_Record], verdict: str) -> str:
    """Return the axes on which the cases themselves have a verdict."""
    found = [row["axis"] for row in rows if row["in_these_cases"]["verdict"] == verdict]
    return ", ".join(map(axis_name, found)) or "none"


def claiming_cases(figures: _Record) -> str:
    """Return what is scaled in the claiming cases that the default method was measured on.

    Args:
        figures: The content of ``transfer.json``.
    """
    measured = {
        case["axis"]
        for case in figures["cases"]
        if case["method"] == DEFAULT and not is_choosing(case)
    }
    if not measured:
        return "That is one run with one seed."
    *first, last = (axis_name(axis) for axis in AXES if axis in measured)
    scaled = f"{', '.join(first)} and {last}" if first else last
    return (
        f"That is one run with one seed. What follows is of cases that scale {scaled}, on "
        "transformers, residual MLPs and a convolutional network. They had no part in the choice "
        f"of the method. *Advised* is the default method, {SPOKEN[DEFAULT]}: the initial weights "
        "of a recipe, and measured multipliers. An octave is a factor of 2."
    )


def _is_repeated(row: _Record, rows: Sequence[_Record]) -> bool:
    """Return whether a row over all cases has the same cases as the row of those that claim."""
    same = ("axis", "method", "cases")  # equally many are equal ones if the alternative is the same
    return row["case_set"] == "all" and any(
        other["case_set"] == "claiming" and all(other[key] == row[key] for key in same)
        for other in rows
    )


def ours_of(row: _Record) -> str:
    """Return our method of a row of ``axes``."""
    return str(row["method"]).partition(" - ")[0]


def other_of(row: _Record) -> str:
    """Return the alternative of a row of ``axes``."""
    return str(row["method"]).partition(" - ")[2]


def _table(method: str, rows: Sequence[_Record]) -> str:
    heads = (
        *(f"{SPOKEN[method]}, scaled", "cases", "best alternative", "difference"),
        *("cases like these", "these cases", "better, worse, cannot tell"),
    )
    return table(heads, [_row(row) for row in rows])


def _row(row: _Record) -> tuple[str, ...]:
    by_case = row["by_case"]
    return (
        "all" if row["axis"] == EVERY_AXIS else axis_name(row["axis"]),
        f"{row['cases']} {'claiming' if row['case_set'] == 'claiming' else 'in all'}",
        *_against(row),
        _marked(row["verdict"]),
        _marked(row["in_these_cases"]["verdict"]),
        ", ".join(str(by_case[word]) for word in ("better", "worse", "cannot tell")),
    )


def _against(row: _Record) -> tuple[str, str]:
    """Return the best alternative, and the difference from it."""
    if row["difference"] is None and row["verdict"] == "better":
        return "none: each diverged in a case", "-"
    return SPOKEN[other_of(row)], difference_text(dict(row))


def _marked(verdict: str) -> str:
    return f"**{verdict}**" if verdict == "worse" else verdict


def choice(figures: _Record) -> str:
    """Return which default method the rule chooses, and how the candidates compare.

    Args:
        figures: The content of ``transfer.json``.
    """
    found = figures["choice"]
    known = found["cases"] + len(found["missing"])
    if found["chosen"] is None:
        return (
            f"The default cannot be chosen yet: none of the {known} choosing cases has records of "
            f"{', '.join(SPOKEN[each] for each in NEEDED)}."
        )
    words = (
        f"The rule of the decision chooses **{SPOKEN[found['chosen']]}** on {found['cases']} of "
        f"{known} choosing cases; the default in use is **{SPOKEN[DEFAULT]}**. The lowest "
        "mean regret wins, unless a simpler method, further up in the table, is not worse beyond "
        "the noise of seeds."
    )
    rows = [
        (
            SPOKEN[each["method"]],
            "diverged" if each["mean_regret"] is None else number(each["mean_regret"], "+.3f"),
            "" if each["verdict"] == "best" else difference_text(each),
            "lowest" if each["verdict"] == "best" else each["verdict"],
        )
        for each in found["candidates"]
    ]
    return f"{words}\n\n{table(('method', 'mean regret', 'from the lowest', 'verdict'), rows)}"

"""What ``python -m benchmarks transfer`` prints: cases, methods, comparisons, the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.markdown import number
from benchmarks.transfer.choice import NEEDED
from benchmarks.transfer.methods import DEFAULT
from benchmarks.transfer.records import Record, case_name, with_interval

_FILE_WIDTH = 120  # characters


def print_document(content: Record) -> None:
    """Print cases and methods, the comparisons of each axis, and the choice of the default.

    Args:
        content: The content of ``transfer.json``.
    """
    console = _console()
    console.print(_cases(content["cases"]))
    console.print(
        "Shifts and regrets are those of the base's best learning rate on the scaled model, with "
        "90% intervals. A regret is relative to the best of the standard method. Within one: "
        "whether the shift is at most one octave. *: an optimum is at the edge of its sweep."
    )
    for name, found in content["methods"].items():
        console.print(f"{name}: {_summary(found)}")
        if 0 < found["choosing"]["cases"] < found["cases"]:
            console.print(f"  cases that claim: {_summary(found['claiming'])}")
    print_axes(content["axes"])
    for line in choice_lines(content["choice"]):
        console.print(line)


def print_axes(rows: Sequence[Record]) -> None:
    """Print how ours compare with the alternative that does best on each axis.

    Args:
        rows: The part ``axes`` of ``transfer.json``; nothing is printed without rows.
    """
    if not rows:
        return
    console = _console()
    console.print(_axes(rows))
    console.print(
        "Regret of a method minus that of the alternative that does best on the axis, in nats; "
        "negative is better. The interval is for cases like these; the verdict in these cases "
        "has only the noise of seeds."
    )


def print_folded(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose cells are folded where it is too wide; intervals have their own lines.

    Args:
        heads: The names of the columns.
        rows: The cells of each row.
    """
    table = Table(box=box.SIMPLE)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace(" [", "\n[") for cell in row))
    _console().print(table)


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    return console


def _cases(records: Sequence[Record]) -> Table:
    table = Table(
        *("case", "method", "shift, octaves", "within one", "regret, nats"),
        *("shift in the octave grid",),
        box=box.SIMPLE,
    )
    table.columns[0].no_wrap = True
    previous = ""
    for record in records:
        verdict = record["verdict"]
        name = case_name(record)
        table.add_row(
            "" if name == previous else name,
            record["method"],
            with_interval(record, "shift", "+.2f"),
            {"within": "yes", "beyond": "[red]no[/]"}.get(verdict, verdict),
            with_interval(record, "regret", "+.3f"),
            _octaves(record["octaves"]["shift"]) + (" *" if record["at_edge"] else ""),
        )
        previous = name
    return table


def _summary(found: Mapping[str, Any]) -> str:
    return (
        f"within one octave in {found['within']} of {found['told']} cases that can be told "
        f"({number(found['within_one_octave'], '.0%')}, target 95%); "
        f"{found['cases'] - found['told']} cannot be told. Median regret: "
        f"{number(found['median_regret'], '+.3f')} nats (target 0.01)."
    )


def _axes(rows: Sequence[Record]) -> Table:
    table = Table(
        *("scaled", "cases", "method - best other", "difference, nats", "verdict"),
        *("in these cases", "better", "worse"),
        box=box.SIMPLE,
    )
    for column in table.columns[:4]:
        column.no_wrap = True
    for row in rows:
        if row["is_best_alternative"]:
            by_case = row["by_case"]
            table.add_row(
                row["axis"].replace("_", " "),
                f"{row['cases']} {row['case_set']}",
                row["method"],
                difference_text(row),
                row["verdict"],
                row["in_these_cases"]["verdict"],
                str(by_case["better"]),
                str(by_case["worse"]),
            )
    return table


def difference_text(row: Record) -> str:
    """Return the difference of two methods with its interval, or which of them diverged.

    Args:
        row: An entry of ``pairs`` or of ``axes``.
    """
    if row["difference"] is not None:
        return with_interval(row, "difference", "+.3f")
    return {"better": "the other diverged", "worse": "diverged"}.get(
        row["verdict"], "each diverged somewhere"
    )


def choice_lines(choice: Mapping[str, Any]) -> list[str]:
    """Return the choice of the default method as lines of text.

    Args:
        choice: The part ``choice`` of ``transfer.json``.
    """
    known = len(choice["missing"]) + choice["cases"]
    if choice["chosen"] is None:
        needed = f"{', '.join(NEEDED[:-1])} and {NEEDED[-1]}"
        return [f"No default can be chosen: none of the {known} choosing cases here has {needed}."]
    first = f"Choice of the default on {choice['cases']} of {known} choosing cases"
    lines = [f"{first}: {choice['chosen']}. The default in use: {DEFAULT}."]
    for each in choice["candidates"]:
        line = f"  {each['method']}: mean regret {_nats(each['mean_regret'])}"
        if each["verdict"] == "best":
            lines.append(f"{line}, the lowest")
        else:
            lines.append(f"{line}, from the lowest {difference_text(each)}: {each['verdict']}")
    if choice["incomplete"]:
        lines.append(f"  not in all of these cases: {', '.join(choice['incomplete'])}")
    return lines


def _nats(value: float | None) -> str:
    return "infinite (diverged)" if value is None else f"{number(value, '+.3f')} nats"


def _octaves(shift: int | None) -> str:
    return "diverged" if shift is None else f"{shift:+d}"

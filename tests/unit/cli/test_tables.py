"""Tables in terminals of any width and in pipes: no number is ever cut."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich import box
from rich.console import Console
from rich.table import Column, Table

from advisor.cli import tables
from advisor.cli.name_cells import NameCell
from advisor.cli.run_metrics import metrics_table
from advisor.cli.run_view import groups_table
from advisor.cli.tables import print_table
from advisor.report.metrics import MetricRow
from advisor.report.run_figures import RunFigures
from tests.stored_runs import stored_run

NAME = "model.decoder.blocks.11.attention.query_key_value.weight"
NUMBERS = ["0.0001234", "-1.235e-09", "12%", "2026-01-02 03:04:05", "nan", "1,234"]


def printed(monkeypatch: pytest.MonkeyPatch, *, width: int, is_terminal: bool) -> str:
    """Return what is printed of a table with a long name and several numbers."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    console = Console(emoji=False, width=width, force_terminal=is_terminal, color_system=None)
    monkeypatch.setattr(tables, "console", console)
    table = Table("group", *(f"number {i}" for i in range(len(NUMBERS))), box=box.SIMPLE)
    table.add_row(f"[bold]{NAME}[/]", *NUMBERS)
    print_table(table)
    return out.getvalue()


@pytest.mark.parametrize("width", [20, 80, 100, 300])
def test_numbers_are_whole_in_a_terminal_of_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(monkeypatch, width=width, is_terminal=True)
    lines = text.splitlines()
    for number in " ".join(NUMBERS).split():  # a date and its time may be on two lines
        assert any(number in line for line in lines), number
    folded = "".join(line[: line.find("  ", 2)].strip() for line in lines)
    assert NAME in folded.replace(" ", "") or NAME in text
    assert "…" not in text
    if width >= 100:
        assert max(map(len, lines)) <= width


def test_nothing_is_folded_where_the_output_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, width=80, is_terminal=False)
    (row,) = [line for line in text.splitlines() if NAME in line]
    for number in NUMBERS:
        assert number in row
    assert re.search(r"group +number 0 +number 1", text)


def test_an_empty_table_and_one_without_headings_are_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    print_table(Table("a", "b"))
    grid = Table.grid()
    grid.add_row("one", "two\nthree")
    print_table(grid)
    assert "onetwo" in out.getvalue()


def test_a_column_that_should_not_wrap_is_folded_rather_than_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    console = Console(emoji=False, width=40, force_terminal=True, color_system=None)
    monkeypatch.setattr(tables, "console", console)
    table = Table("run", Column("last measured\n(UTC)", no_wrap=True), box=box.SIMPLE)
    table.add_row("a-run-with-a-name-that-is-wide", "2026-01-02 03:04:05")
    print_table(table)
    assert "2026-01-02" in out.getvalue()
    assert "03:04:05" in out.getvalue()


@pytest.mark.parametrize("width", [40, 80])
def test_names_are_folded_after_dots_and_underscores(width: int) -> None:
    table = Table(Column("group", overflow="fold"), "number", box=None)
    table.add_row(NameCell(NAME), "1.234e-05 to 7.8")
    table.add_row(NameCell("x" * 40 + "[b]\x1b"), "")
    console = Console(file=io.StringIO(), width=width, emoji=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    pieces = [line.split()[0] for line in lines[1:] if line.split()]
    ends = [piece[-1] for piece in pieces if NAME.startswith(piece) or piece in NAME]
    assert set(ends[:-1]) <= {".", "_"}
    assert "".join(pieces) == NAME + "x" * 40 + "[b]\ufffd"


def test_tables_of_runs_fold_long_names_and_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [("very.long_name/" * 9)[:121] + ".weight", "m" * 128]
    assert [*map(len, names)] == [128, 128]
    figures = RunFigures.of(*stored_run(names))
    metrics = [
        MetricRow(name, 1234, 12, 123_456_789, -1.2345678e-5, -9e300, 1e300) for name in names
    ]
    for table, numbers in (
        (metrics_table(metrics), ["-1.23457e-05", "123456789", "-9e+300", "1e+300", "1234", "12"]),
        (groups_table(figures.recommended_groups(), observes_only=True), ["66.7%", "matched"]),
    ):
        out = io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        console = Console(emoji=False, width=80, force_terminal=True, color_system=None)
        monkeypatch.setattr(tables, "console", console)
        print_table(table)
        lines = out.getvalue().splitlines()
        assert max(map(len, lines)) <= 80
        for number in numbers:
            assert number in out.getvalue().split()
        width = table.columns[0].width or 0
        assert "".join(line[:width].strip() for line in lines[3:]) == "".join(names)

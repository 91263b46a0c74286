"""Prints tables in which no number is cut, and no name where the output is not a terminal."""

from __future__ import annotations

import re

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from advisor.cli.common import console

_NUMBERS = re.compile(r"[-+\d.,:%eE@/ ]*|-?(inf|nan)")
_MIN_TEXT_WIDTH = 12  # of a column of names or sentences, which may be folded


def print_table(table: Table) -> None:
    """Print a table to standard output.

    In a terminal, names are folded where the table is too wide, and numbers are not: rather, lines
    become longer than the terminal's. Elsewhere, as in a pipe, no cell is folded.

    Args:
        table: The table; its columns are changed.
    """
    widest = Measurement.get(console, console.options.update(width=10_000), table).maximum
    if not console.is_terminal:
        _print(table, widest)
        return
    padding = widest - sum(_widths(table))
    least = 0
    for column in table.columns:
        column.overflow = "fold"
        cells = [_plain(cell) for cell in column.cells]
        width = max((len(line) for cell in cells for line in cell.splitlines()), default=0)
        if cells and all(_NUMBERS.fullmatch(cell) for cell in cells):
            _keep_whole(column)
            width = max(width, *map(len, _plain(column.header).splitlines() or [""]))
            least += width
        else:
            least += min(width, _MIN_TEXT_WIDTH)
    _print(table, max(console.width, least + padding))


def _keep_whole(column: Column) -> None:
    """Keep the cells of a column on one line each; its heading takes as many lines as words."""
    column.no_wrap = True
    if isinstance(column.header, str):
        column.header = column.header.replace(" ", "\n")


def _widths(table: Table) -> list[int]:
    """Return the width of each column's widest line, its heading included."""
    return [
        max(
            (len(line) for cell in (column.header, *column.cells) for line in _lines(cell)),
            default=0,
        )
        for column in table.columns
    ]


def _lines(cell: object) -> list[str]:
    return _plain(cell).splitlines()


def _plain(cell: object) -> str:
    """Return a cell's text without markup."""
    return Text.from_markup(cell).plain if isinstance(cell, str) else str(cell)


def _print(table: Table, width: int) -> None:
    Console(emoji=False, width=width).print(table)

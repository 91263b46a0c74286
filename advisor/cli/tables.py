"""Prints tables in which no number is cut, and no name where the output is not a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from advisor.cli.common import console
from advisor.cli.progress import progress

_NUMBERS = re.compile(r"[-+\d.,:%eE@/]*|-?(inf|nan)")
_MIN_TEXT_WIDTH = 12  # of a column of names or sentences, which may be folded; a date has 10


def print_table(table: Table) -> None:
    """Print a table to standard output.

    In a terminal, names and sentences are folded where the table is too wide, and numbers are not:
    rather, lines become longer than the terminal's. Elsewhere, as in a pipe, no cell is folded.

    Args:
        table: The table; its columns are changed.
    """
    with progress("laying out the table"):
        widest = Measurement.get(console, console.options.update(width=10_000), table).maximum
        if console.is_terminal and widest > console.width:
            widest = _fit(table, widest, console.width)
        # With its height, a console of any kind of terminal has the given width.
        Console(emoji=False, width=widest, height=console.height).print(table)


def print_wrapped(table: Table, width: int) -> bool:
    """Print a table of texts in a width, with lines of cells that end between words.

    Args:
        table: The table; its columns are changed.
        width: The width.

    Returns:
        Whether it fits; otherwise nothing is printed.
    """
    natural = Measurement.get(console, console.options.update(width=10_000), table).maximum
    frame = natural - sum(map(_width, table.columns))
    least = [_widest_word(column) for column in table.columns]
    if sum(least) + frame > width:
        return False
    widths = _fewest_lines(table.columns, least, width - frame)
    for column, own in zip(table.columns, widths, strict=True):
        column.width = own
    table.leading = int(sum(widths) + frame < natural)  # a blank line between wrapped rows
    total = sum(widths) + frame
    Console(emoji=False, width=total, height=console.height, highlight=False).print(table)
    return True


def print_view(view: RenderableType) -> None:
    """Print texts and tables to standard output: as wide as the terminal, unfolded elsewhere.

    Args:
        view: The texts and tables.
    """
    with progress("laying out the tables"):
        if console.is_terminal:
            console.print(view)
            return
        widest = Measurement.get(console, console.options.update(width=10_000), view).maximum
        Console(emoji=False, width=widest, height=console.height).print(view)


def _fit(table: Table, natural: int, width: int) -> int:
    """Set the widths of a table's columns, and return the table's width.

    Args:
        table: The table.
        natural: Its width if nothing is folded.
        width: The width that it should have.
    """
    frame = natural - sum(map(_width, table.columns))
    foldable: list[Column] = []
    for column in table.columns:
        cells = [_plain(cell) for cell in column.cells]
        if cells and all(_NUMBERS.fullmatch(cell) for cell in cells):
            if isinstance(column.header, str):
                column.header = column.header.replace(" ", "\n")
        else:
            column.overflow, column.no_wrap = "fold", False  # what is not folded would be cut
            foldable.append(column)
        column.width = _width(column)
    while sum(column.width or 0 for column in table.columns) + frame > width:
        widest = max(foldable, key=lambda column: column.width or 0, default=None)
        if widest is None or (widest.width or 0) <= _MIN_TEXT_WIDTH:
            break
        widest.width = (widest.width or 0) - 1
    return sum(column.width or 0 for column in table.columns) + frame


def _width(column: Column) -> int:
    """Return the width of a column's widest line, its heading included."""
    lines = (line for cell in (column.header, *column.cells) for line in _plain(cell).splitlines())
    return max(map(cell_len, lines), default=0)


def _fewest_lines(columns: Sequence[Column], least: Sequence[int], room: int) -> list[int]:
    """Return widths of columns with which a table has few lines.

    Args:
        columns: The columns.
        least: The smallest width of each.
        room: The sum that widths must not exceed.
    """
    widths = list(least)
    lines = [
        {width: _lines(column, width) for width in range(low, _width(column) + 1)}
        for column, low in zip(columns, least, strict=True)
    ]
    while True:
        now = [of_column[width] for of_column, width in zip(lines, widths, strict=True)]
        height, spare = _height(now), room - sum(widths)
        found: tuple[float, int, int] | None = None
        for i, width in enumerate(widths):
            for wider in range(width + 1, min(width + spare, max(lines[i])) + 1):
                gain = height - _height([*now[:i], lines[i][wider], *now[i + 1 :]])
                if gain and (found is None or gain / (wider - width) > found[0]):
                    found = gain / (wider - width), i, wider
        if found is None:
            return widths
        widths[found[1]] = found[2]


def _lines(column: Column, width: int) -> list[int]:
    """Return the number of lines of each cell of a column."""
    cells = map(_plain, column.cells)
    return [len(textwrap.wrap(cell, width, break_on_hyphens=False)) for cell in cells]


def _height(lines: Sequence[Sequence[int]]) -> int:
    """Return the number of lines of a table, from those of its cells by column."""
    return sum(map(max, zip(*lines, strict=True)))


def _widest_word(column: Column) -> int:
    """Return the width of a column's widest word, its heading included."""
    words = (word for cell in (column.header, *column.cells) for word in _plain(cell).split())
    return max(map(cell_len, words), default=0)


def _plain(cell: object) -> str:
    """Return a cell's text without markup."""
    return Text.from_markup(cell).plain if isinstance(cell, str) else str(cell)

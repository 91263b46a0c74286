"""Names of parameters in tables, folded where a reader would fold them."""

from __future__ import annotations

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from advisor.policy.control_characters import without_controls
from advisor.report.words import name_pieces


class NameCell:
    """A name that a narrow column folds after dots, slashes and underscores.

    Rich itself folds a word that is too wide at any letter.

    Args:
        name: The name, or a list of names in one text.
    """

    def __init__(self, name: str) -> None:
        self._name = without_controls(name)

    def __str__(self) -> str:
        """Return the whole name."""
        return self._name

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the widths of the longest piece and of the whole name."""
        widest = max(map(cell_len, name_pieces(self._name)), default=0)
        return Measurement(widest, cell_len(self._name)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Return the name in lines that fit."""
        yield Text("\n".join(_lines(self._name, options.max_width)))


def _lines(name: str, width: int) -> list[str]:
    """Return a name in lines; a piece that is wider than a line is cut."""
    lines = [""]
    for piece in name_pieces(name):
        if cell_len(lines[-1] + piece.rstrip()) <= width:
            lines[-1] += piece
        else:
            lines += chop_cells(piece, width)
    return [line for line in lines if line]

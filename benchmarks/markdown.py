"""Markdown of the pages that are written from figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in lines)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in escaped)


def number(value: float | None, form: str = ".3f") -> str:
    """Return a figure; a dash where there is none or none that is finite.

    Args:
        value: The figure.
        form: Its format.
    """
    if value is None or not math.isfinite(value):
        return "-"
    text = format(value, form)
    # A zero has no sign, whichever side rounding came from.
    return text.replace("-", "", 1) if text.strip("-0.%") == "" else text

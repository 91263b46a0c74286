"""Markdown: tables, numbers and wrapped paragraphs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

_LINE_WIDTH = 100  # characters


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table.

    Args:
        heads: The column headers.
        rows: The cells of each row.
    """
    lines = [heads, ["---"] * len(heads), *rows]
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in lines)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in escaped)


def number(value: float | None, form: str = ".3f") -> str:
    """Return a formatted figure, or a dash if the figure is missing or not finite.

    Args:
        value: The figure.
        form: Its format specification.
    """
    if value is None or not math.isfinite(value):
        return "-"
    text = format(value, form)
    # A value that rounds to zero is printed without its minus sign.
    return text.replace("-", "", 1) if text.strip("-0.%") == "" else text


def wrapped(text: str) -> str:
    """Return text with its paragraphs wrapped.

    Tables, headings, images and lists are left unchanged.

    Args:
        text: Blocks of Markdown, separated by blank lines.
    """
    return "\n\n".join(map(_wrapped_paragraph, text.split("\n\n")))


def _wrapped_paragraph(paragraph: str) -> str:
    if paragraph.startswith(("|", "#", "!", "-")):
        return paragraph
    return textwrap.fill(paragraph, _LINE_WIDTH, break_long_words=False, break_on_hyphens=False)

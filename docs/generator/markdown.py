"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table.

    Args:
        heads: The heads of its columns.
        rows: Its rows.
    """
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


def code(*lines: str) -> str:
    """Return names for one cell, one a line; the class keeps each of them on its line.

    Args:
        lines: The names.
    """
    return "<br>".join(f"`{line}`{{ .name }}" for line in lines)

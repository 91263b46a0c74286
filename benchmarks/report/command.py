"""``python -m benchmarks results``: pages and pictures from the figures that are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.report.page import PAGE, PICTURES, drawn, page
from benchmarks.report.tables import FIGURES, PAGES, with_figures

_console = Console()


def results(
    root: Annotated[Path, typer.Option(help="The repository.")] = Path(),
) -> None:
    """Write pages and pictures from the figures of benchmarks/results; measures nothing."""
    folder = root / FIGURES
    pictures = {PICTURES / name: text for name, text in drawn(folder).items()}
    pages = {each: with_figures((root / each).read_text("utf-8"), folder) for each in PAGES}
    for path, text in {**pages, PAGE: page(folder), **pictures}.items():
        _write(root, path, text)
    for old in sorted((root / PICTURES).glob("*.svg")):
        if PICTURES / old.name not in pictures:
            old.unlink()
            _console.print(f"{PICTURES / old.name}: removed")


def _write(root: Path, path: Path, text: str) -> None:
    file = root / path
    if file.exists() and file.read_text("utf-8") == text:
        _console.print(f"{path}: as it was")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    _console.print(f"{path}: written")

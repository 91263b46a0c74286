"""``python -m benchmarks results``: pages and pictures from the stored figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.report.pages import render_page
from benchmarks.report.paths import FIGURES, PAGES_WITH_BLOCKS, PICTURES, RESULTS
from benchmarks.report.pictures import draw_pictures
from benchmarks.report.results_page import results_page
from benchmarks.report.stored import load_figures

_console = Console()


def results(
    root: Annotated[Path, typer.Option(help="Root of the repository.")] = Path(),
) -> None:
    """Write pages and pictures from the figures in benchmarks/results; measures nothing."""
    figures = load_figures(root / FIGURES)
    written = {
        page: render_page((root / page).read_text("utf-8"), figures) for page in PAGES_WITH_BLOCKS
    }
    written[RESULTS] = results_page(figures)
    written |= {PICTURES / name: svg for name, svg in draw_pictures(figures).items()}
    for path, text in written.items():
        _write(root, path, text)
    for old in sorted((root / PICTURES).glob("*.svg")):
        if PICTURES / old.name not in written:
            old.unlink()
            _console.print(f"{PICTURES / old.name}: removed")


def _write(root: Path, path: Path, text: str) -> None:
    file = root / path
    if file.exists() and file.read_text("utf-8") == text:
        _console.print(f"{path}: unchanged")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    _console.print(f"{path}: written")

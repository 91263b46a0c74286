"""``python -m benchmarks compare``: compare two files or folders of figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.comparing.judging import Change, Comparison, Verdict, compare

_Stored = Annotated[
    Path, typer.Argument(exists=True, help="File of figures, or folder of such files.")
]
_console = Console()


def compare_stored(
    old: _Stored,
    new: _Stored,
    as_json: Annotated[bool, typer.Option("--json", help="Print only JSON.")] = False,
) -> None:
    """Show which figures changed beyond noise; exit with status 1 if one got worse."""
    compared = compare_paths(old, new)
    found = [(name, change) for name, each in compared.items() for change in each.changes]
    notes = [f"{name}: {note}" for name, each in compared.items() for note in each.notes]
    if as_json:
        typer.echo(json.dumps(_as_json(found, notes), indent=2))
    else:
        _show(found, notes)
    if any(change.verdict is Verdict.WORSE for _, change in found):
        raise typer.Exit(1)


def compare_paths(old: Path, new: Path) -> dict[str, Comparison]:
    """Compare two files, or files with the same names in two folders.

    Args:
        old: The old file or folder.
        new: The new file or folder.

    Returns:
        The comparison of each file, by file name without suffix.

    Raises:
        typer.BadParameter: One is a folder and the other a file, the folders have no files of
            figures, or a file is not valid.
    """
    if old.is_dir() != new.is_dir():
        raise typer.BadParameter(
            f"{old} and {new} are a folder and a file; give two files or two folders"
        )
    if not old.is_dir():
        return {new.stem: compare(_read(old), _read(new))}
    names = sorted({file.name for folder in (old, new) for file in folder.glob("*.json")})
    if not names:
        raise typer.BadParameter(
            f"neither {old} nor {new} has a .json file; give folders of figures"
        )
    return {Path(name).stem: _compare_files(old / name, new / name) for name in names}


def _compare_files(old: Path, new: Path) -> Comparison:
    if old.exists() and new.exists():
        return compare(_read(old), _read(new))
    # All figures of a file in only one folder are new or gone, wherever they were measured.
    existing = _read(old if old.exists() else new)
    empty: dict[str, Any] = {
        key: existing[key] for key in ("machine", "versions") if key in existing
    }
    before, after = (existing, empty) if old.exists() else (empty, existing)
    return Comparison(compare(before, after).changes, [])


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise typer.BadParameter(
            f"{file} is not valid JSON ({error}); give a file that a benchmark wrote with --out"
        ) from error
    if not isinstance(content, dict):
        raise typer.BadParameter(
            f"{file} is not a JSON object; give a file that a benchmark wrote with --out"
        )
    return content


def _as_json(found: list[tuple[str, Change]], notes: list[str]) -> dict[str, Any]:
    listed = {
        verdict.value.replace(" ", "_"): [
            {"file": name, "figure": c.path, "old": c.old, "new": c.new, "why": c.why}
            for name, c in found
            if c.verdict is verdict
        ]
        for verdict in Verdict
    }
    return {**listed, "notes": notes}


def _show(found: list[tuple[str, Change]], notes: list[str]) -> None:
    for note in notes:
        _console.print(note, style="yellow", highlight=False)
    hidden = {Verdict.WITHIN_NOISE, Verdict.NOT_COMPARED}
    table = Table("verdict", "figure", "old", "new", "noise")
    for verdict in Verdict:
        for name, change in found:
            if change.verdict is verdict and verdict not in hidden:
                table.add_row(
                    f"[bold red]{verdict}[/]" if verdict is Verdict.WORSE else verdict.value,
                    f"{name}: {change.path}",
                    _number(change.old),
                    _number(change.new),
                    change.why,
                )
    if table.row_count:
        _console.print(table)
    counts = {v: sum(change.verdict is v for _, change in found) for v in Verdict}
    _console.print(", ".join(f"{count} {verdict.value}" for verdict, count in counts.items()))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

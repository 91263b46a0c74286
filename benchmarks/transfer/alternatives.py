"""``python -m benchmarks alternatives``: ours against the best alternative on each axis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.provenance import PROVENANCE, AsJson
from benchmarks.transfer.printing import print_axes

_STORED = Path(__file__).parents[1] / "results" / "transfer.json"


def alternatives(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="File of the command transfer.")
    ] = _STORED,
    *,
    as_json: AsJson = False,
) -> None:
    """Compare ours with the alternative that does best on each axis, from stored figures."""
    content = json.loads(file.read_text("utf-8"))
    if not isinstance(content, dict) or "axes" not in content:
        raise typer.BadParameter(
            f"{file} has no comparisons of methods; give a file that the command transfer wrote"
        )
    rows = [row for row in content["axes"] if row["is_best_alternative"]]
    if as_json:
        source = {key: content[key] for key in PROVENANCE if key in content}
        typer.echo(json.dumps({**source, "axes": rows}, indent=1, allow_nan=False))
    else:
        print_axes(rows)

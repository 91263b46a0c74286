"""Options that several benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

Resume = Annotated[
    Path | None,
    typer.Option(help="Folder for the results of trainings; those that it has are not run."),
]
Processes = Annotated[
    int, typer.Option(help="Trainings to run in parallel, with one thread each.", min=1)
]
Figures = Annotated[
    Path, typer.Option(help="File of the transfer benchmark, with records of the cases.")
]

_Value = TypeVar("_Value", str | None, list[str] | None)


def one_of(known: Sequence[str]) -> Callable[[_Value], _Value]:
    """Return a callback that rejects unknown values of an option.

    Args:
        known: The allowed values.
    """

    def check(given: _Value) -> _Value:
        for value in [given] if isinstance(given, str) else given or ():
            if value not in known:
                raise typer.BadParameter(f"{value!r} is not one of {', '.join(known)}")
        return given

    return check

"""What options of several benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import typer

_Given = TypeVar("_Given", str | None, list[str] | None)


def one_of(known: Sequence[str]) -> Callable[[_Given], _Given]:
    """Return a callback that refuses what is not known.

    Args:
        known: What the option, or each of its values, may be.
    """

    def check(given: _Given) -> _Given:
        for value in [given] if isinstance(given, str) else given or ():
            if value not in known:
                raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}")
        return given

    return check

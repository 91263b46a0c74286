"""The blocks of a page that are rendered from the stored figures.

A block is everything between a line ``<!-- figures: NAME -->`` and the next line
``<!-- /figures -->``. The rest of the page is written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

_START, _START_END = "<!-- figures: ", " -->"
_END = "<!-- /figures -->"


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a page: a block if it has a name, else text written by hand."""

    name: str | None
    lines: tuple[str, ...]


def block_names(page: str) -> list[str]:
    """Return the names of a page's blocks, in order.

    Args:
        page: The page.

    Raises:
        ValueError: A block is not closed, or an end has no start.
    """
    return [part.name for part in _parts(page) if part.name is not None]


def with_blocks(page: str, render: Callable[[str], str]) -> str:
    """Return a page with the content of its blocks rendered again.

    Args:
        page: The page.
        render: Returns the content of a block, given its name.

    Raises:
        ValueError: A block is not closed, or an end has no start.
    """
    lines: list[str] = []
    for part in _parts(page):
        if part.name is None:
            lines += part.lines
        else:
            lines += [f"{_START}{part.name}{_START_END}", *render(part.name).split("\n"), _END]
    return "\n".join(lines)


def without_blocks(page: str) -> str:
    """Return what is written by hand in a page.

    Args:
        page: The page.

    Raises:
        ValueError: A block is not closed, or an end has no start.
    """
    return "\n".join(line for part in _parts(page) if part.name is None for line in part.lines)


def _parts(page: str) -> Iterator[_Part]:
    name: str | None = None
    lines: list[str] = []
    for line in page.split("\n"):
        is_start = line.startswith(_START) and line.endswith(_START_END)
        if not is_start and line != _END:
            lines.append(line)
            continue
        if is_start == (name is not None):
            raise ValueError(
                f"{line!r} follows {'an open' if is_start else 'no'} block; give each block one "
                f"start line and one end line {_END!r}"
            )
        yield _Part(name, tuple(lines))
        lines = []
        name = line.removeprefix(_START).removesuffix(_START_END) if is_start else None
    if name is not None:
        raise ValueError(f"the block {name!r} is not closed; end it with the line {_END!r}")
    yield _Part(None, tuple(lines))

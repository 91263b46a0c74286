"""Shows that a command is at work, once it has taken two seconds."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

DELAY_S = 2.0

_Item = TypeVar("_Item")
_console = Console(stderr=True, emoji=False)
_is_under_way = False


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """Show what is under way, if it takes longer than two seconds.

    It is shown on standard error, and only in a terminal; nothing of it remains. Of what is under
    way as a part of something else, only the latter is shown.

    Args:
        what: What is under way, such as ``reading the history of night``; plain text.
        total: Number of its parts, for a bar; None: not known.

    Yields:
        The display, which has one task.
    """
    global _is_under_way  # noqa: PLW0603 - a process has one terminal
    is_shown = _console.is_terminal and not _is_under_way
    columns = [BarColumn(bar_width=24), MofNCompleteColumn()] if total else []
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *columns,
        TimeElapsedColumn(),
        console=_console,
        transient=True,
        disable=not is_shown,
    )
    shown.add_task(what, total=total)
    if not is_shown:
        yield shown
        return
    lock, has_ended = threading.Lock(), threading.Event()

    def start() -> None:
        with lock:
            if not has_ended.is_set():
                shown.start()

    timer = threading.Timer(DELAY_S, start)
    timer.daemon = True
    timer.start()
    _is_under_way = True
    try:
        yield shown
    finally:
        _is_under_way = False
        timer.cancel()
        with lock:
            has_ended.set()
            shown.stop()


def counted(items: Iterable[_Item], what: str, total: int | None = None) -> Iterator[_Item]:
    """Iterate over items, and show how many there were, once it has taken two seconds.

    Args:
        items: The items.
        what: As in :func:`progress`.
        total: Expected number of items; None: not known.

    Yields:
        The items.
    """
    with progress(what, total) as shown:
        for item in items:
            yield item
            shown.advance(shown.task_ids[0])

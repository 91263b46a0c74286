"""Shows that a command is at work, once it has taken two seconds.

Every command is shown by its name (:func:`whole_command`), and what it says of its parts
(:func:`progress`, :func:`counted`) is shown in place of that. All of it is on standard error, and
only in a terminal; nothing of it remains, and it is gone before anything else is written there.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO, TypeVar

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


class _Screen:
    """What is under way in this process, of which a terminal shows one thing."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._command: Progress | None = None
        self._parts: list[Progress] = []
        self._shown: Progress | None = None
        self._due = 0.0
        self._timer: threading.Timer | None = None

    def begin(self, work: Progress, *, is_command: bool) -> None:
        """Add what is under way."""
        with self._lock:
            if self._command is None and not self._parts:
                self._due = time.monotonic() + DELAY_S
            if is_command:
                self._command = work
            else:
                self._parts.append(work)
            self._update()

    def end(self, work: Progress) -> None:
        """Remove what has ended."""
        with self._lock:
            if self._command is work:
                self._command = None
            if work in self._parts:
                self._parts.remove(work)
            self._update()

    def make_room(self) -> None:
        """Hide what is shown, as something else is about to be written.

        A command that has written something may go on for ever, or wait for an answer, so from here
        on only its parts are shown.
        """
        with self._lock:
            self._command = None
            self._due = time.monotonic() + DELAY_S
            self._update()

    def _update(self) -> None:
        """Show the outermost part, or the command if there is none, once the delay is over."""
        with self._lock:
            wanted = self._parts[0] if self._parts else self._command
            left_s = self._due - time.monotonic()
            if wanted is None:
                self._set_timer(None)
            elif left_s > 0:
                if self._timer is None:
                    self._set_timer(left_s)
                wanted = None
            if wanted is self._shown:
                return
            if self._shown is not None:
                self._shown.stop()
            self._shown = wanted
            if wanted is not None:
                wanted.start()

    def _set_timer(self, seconds: float | None) -> None:
        """Update what is shown in a while; None: not by itself."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None:
            self._timer = threading.Timer(seconds, self._on_time)
            self._timer.daemon = True
            self._timer.start()

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
            self._update()


_screen = _Screen()


class _Output:
    """A stream of a terminal; what is shown there is hidden before something is written.

    Args:
        stream: The stream itself.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write as the stream does."""
        _screen.make_room()
        return self.stream.write(text)

    def close(self) -> None:
        """Close the stream, on which nothing can be shown any more."""
        _screen.make_room()
        self.stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _terminal() -> Console:
    """Return a console on standard error itself."""
    stream: Any = sys.stderr
    return Console(
        file=stream.stream if isinstance(stream, _Output) else stream, stderr=True, emoji=False
    )


@contextmanager
def whole_command(name: str) -> Iterator[None]:
    """Show a command by its name until it writes something, if that takes longer than two seconds.

    Args:
        name: Its name, such as ``advisor run show``; plain text.

    Yields:
        Nothing.
    """
    if not _terminal().is_terminal:
        yield
        return
    streams = {"stderr": sys.stderr}  # it need not be a terminal, as with FORCE_COLOR
    if sys.stdout.isatty():
        streams["stdout"] = sys.stdout
    with ExitStack() as stack:
        for name_of_stream, stream in streams.items():
            stack.callback(setattr, sys, name_of_stream, stream)
            setattr(sys, name_of_stream, _Output(stream))
        with _shown(_display(name), is_command=True):
            yield


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """Show what is under way, if it takes longer than two seconds.

    Of what is under way as a part of something else, only the latter is shown.

    Args:
        what: What is under way, such as ``reading the history of night``; plain text.
        total: Number of its parts, for a bar; None: not known.

    Yields:
        The display, which has one task.
    """
    display = _display(what, total)
    if display.disable:
        yield display
        return
    with _shown(display, is_command=False):
        yield display


@contextmanager
def _shown(display: Progress, *, is_command: bool) -> Iterator[None]:
    _screen.begin(display, is_command=is_command)
    try:
        yield
    finally:
        _screen.end(display)


def _display(what: str, total: int | None = None) -> Progress:
    """Return a display of one task. It shows nothing if standard error is no terminal."""
    console = _terminal()
    columns = [BarColumn(bar_width=24), MofNCompleteColumn()] if total else []
    display = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # results may go to a file while this is a terminal
        redirect_stderr=False,
        disable=not console.is_terminal,
    )
    display.add_task(what, total=total)
    return display


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

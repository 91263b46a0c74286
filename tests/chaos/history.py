"""The history of a run: what was asked, what came back, which faults there were; a file of lines.

Each line is a JSON object with ``t`` (monotonic clock of the machine, nanoseconds, the same for all
processes) and ``event``. Several processes append to one file: a line is written in one piece.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["ok", "refused", "unknown"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "refused", "unknown")
FOREVER_NS = 2**63
Values = dict[str, Any]


@dataclass(slots=True)
class Operation:
    """One thing that a client asked for, with all its retries.

    Attributes:
        id: Unique in the history.
        kind: What was asked for, such as ``register``.
        asked: With which values.
        invoked_ns: When it was begun.
        returned_ns: When its outcome was known; :data:`FOREVER_NS` where it never was.
        outcome: ``ok``; ``refused``: it was not and never will be done; ``unknown``: it may have
            been done, or be done later.
        told: The answer's values, or the error's.
    """

    id: str
    kind: str
    asked: Values
    invoked_ns: int
    returned_ns: int = FOREVER_NS
    outcome: Outcome = "unknown"
    told: Values = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it was acknowledged."""
        return self.outcome == "ok"


@dataclass(frozen=True, slots=True)
class History:
    """What a file of history says.

    Attributes:
        operations: In the order of their beginnings.
        notes: All other lines, such as faults, steps and the registry as it was read at the end.
    """

    operations: list[Operation]
    notes: list[Values]

    def of(self, event: str) -> list[Values]:
        """Return the notes of one kind of event."""
        return [note for note in self.notes if note["event"] == event]


class Recorder:
    """Appends to a history, from any thread.

    Args:
        path: The file.
        process: Distinguishes this process's operations from others'.
    """

    def __init__(self, path: Path, process: str) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def note(self, event: str, **values: Any) -> int:
        """Write a line, and return its time in nanoseconds."""
        now = time.monotonic_ns()
        line = json.dumps({"t": now, "event": event, **values}) + "\n"
        with self._lock:
            os.write(self._file, line.encode())
        return now

    def invoke(self, kind: str, asked: Values) -> str:
        """Write that an operation begins, and return its identifier."""
        number = f"{self._process}-{next(self._numbers)}"
        self.note("invoke", id=number, kind=kind, asked=asked)
        return number

    def returned(self, number: str, outcome: Outcome, told: Values) -> None:
        """Write what became of an operation."""
        self.note(outcome, id=number, told=told)


def read(path: Path) -> History:
    """Read a history."""
    operations: dict[str, Operation] = {}
    notes: list[Values] = []
    for line in _lines(path):
        match line["event"]:
            case "invoke":
                number = line["id"]
                operations[number] = Operation(number, line["kind"], line["asked"], line["t"])
            case "ok" | "refused" | "unknown" as outcome:
                operation = operations[line["id"]]
                operation.outcome, operation.told = outcome, line["told"]
                operation.returned_ns = line["t"]
            case _:
                notes.append(line)
    return History(sorted(operations.values(), key=lambda each: each.invoked_ns), notes)


def _lines(path: Path) -> Iterator[Values]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):  # the last one may be cut off, where a process was killed
                yield json.loads(line)

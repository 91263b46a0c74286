"""The history of a run: requests, responses and faults, one per line of a file.

Each line is a JSON object with ``event`` and ``t``, the time in nanoseconds of the machine's
monotonic clock, which all processes share. Several processes append to one file, so each line is
written with a single call.
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
    """A call of a client, with all its retries.

    Attributes:
        id: An identifier, unique in the history.
        kind: The kind of call, such as ``register``.
        request: The values of the request.
        invoked_ns: When it started.
        returned_ns: When its outcome was known; :data:`FOREVER_NS` if it never was.
        outcome: ``ok``; ``refused``: it had and will have no effect; ``unknown``: it may have had
            an effect, or may have one later.
        response: The values of the answer or of the error.
    """

    id: str
    kind: str
    request: Values
    invoked_ns: int
    returned_ns: int = FOREVER_NS
    outcome: Outcome = "unknown"
    response: Values = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it was acknowledged."""
        return self.outcome == "ok"


@dataclass(frozen=True, slots=True)
class History:
    """The contents of a history file.

    Attributes:
        operations: The operations in the order of their start.
        notes: All other lines, such as faults, steps and the final state of the registry.
    """

    operations: list[Operation]
    notes: list[Values]

    def of(self, event: str) -> list[Values]:
        """Return the notes with an event."""
        return [note for note in self.notes if note["event"] == event]


class Recorder:
    """Appends to a history file; safe to use from any thread.

    Args:
        path: The file.
        process: A prefix for the identifiers of this process's operations.
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
        """Write a line and return its time in nanoseconds."""
        now = time.monotonic_ns()
        line = json.dumps({"t": now, "event": event, **values}) + "\n"
        with self._lock:
            os.write(self._file, line.encode())
        return now

    def invoke(self, kind: str, request: Values) -> str:
        """Write that an operation starts, and return its identifier."""
        number = f"{self._process}-{next(self._numbers)}"
        self.note("invoke", id=number, kind=kind, request=request)
        return number

    def returned(self, number: str, outcome: Outcome, response: Values) -> None:
        """Write the outcome of an operation."""
        self.note(outcome, id=number, response=response)


def read(path: Path) -> History:
    """Read a history."""
    operations: dict[str, Operation] = {}
    notes: list[Values] = []
    for line in _lines(path):
        match line["event"]:
            case "invoke":
                number = line["id"]
                operations[number] = Operation(number, line["kind"], line["request"], line["t"])
            case "ok" | "refused" | "unknown" as outcome:
                operation = operations[line["id"]]
                operation.outcome, operation.response = outcome, line["response"]
                operation.returned_ns = line["t"]
            case _:
                notes.append(line)
    return History(sorted(operations.values(), key=lambda each: each.invoked_ns), notes)


def _lines(path: Path) -> Iterator[Values]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):  # the last line is incomplete if a process was killed
                yield json.loads(line)

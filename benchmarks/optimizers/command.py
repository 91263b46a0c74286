"""``python -m benchmarks optimizers``: on which optimizers multipliers act, and where."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Annotated, TypedDict

import typer
from rich.console import Console

from benchmarks.optimizers.packages import PACKAGES, installed_version, optimizers_in
from benchmarks.optimizers.trial import STEPS, TOLERANCE, Outcome, Where, try_optimizer
from benchmarks.options import one_of
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.training import one_thread

_console = Console(stderr=True)


class PackageOutcomes(TypedDict):
    """What happened with the optimizers of a package.

    Attributes:
        version: Its version; None: it is not installed.
        missing: Why it was not tried; empty: it was.
        optimizers: The outcome of each class.
    """

    version: str | None
    missing: str
    optimizers: list[Outcome]


def optimizers(
    package: Annotated[
        list[str] | None,
        typer.Option(
            help="A package. Can be given several times.", callback=one_of(list(PACKAGES))
        ),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="A class. Can be given several times.")
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Optimizers to try in parallel, each in a process; 0: in this one.")
    ] = 2,
    seconds: Annotated[
        int, typer.Option(help="Give an optimizer up after so many seconds.", min=1)
    ] = 900,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Train with each optimizer of the installed packages, and compare steps with multipliers."""
    with one_thread(), _only_errors_logged():
        found = {
            each: _of_package(each, set(name or ()), processes=processes, seconds=seconds)
            for each in package or PACKAGES
        }
    figures = {"packages": found, "steps": STEPS, "tolerance": TOLERANCE}
    emit(figures, as_json=as_json, out=out, without=("--processes",), threads=1)
    if not as_json:
        for each, outcomes in found.items():
            counts = Counter(outcome["where"] for outcome in outcomes["optimizers"])
            words = ", ".join(f"{where}: {count}" for where, count in counts.items())
            Console().print(f"{each} {outcomes['version'] or ''}: {words or outcomes['missing']}")


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    log = logging.getLogger("fslr")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _of_package(package: str, names: set[str], *, processes: int, seconds: int) -> PackageOutcomes:
    found = PackageOutcomes(version=installed_version(package), missing="", optimizers=[])
    if found["version"] is None:
        return {**found, "missing": "not installed"}
    try:
        kinds = optimizers_in(package)
    except Exception as error:  # noqa: BLE001 - what a package raises when its libraries are missing
        return {**found, "missing": f"{type(error).__name__}: {error}"}
    wanted = [name for name in kinds if not names or name in names]
    outcomes = (
        _in_processes(package, wanted, processes, seconds)
        if processes
        else (try_optimizer(package, name) for name in wanted)
    )
    for outcome in outcomes:
        found["optimizers"].append(outcome)
        name, where, reason = outcome["name"], outcome["where"], outcome["reason"]
        _console.print(f"{package}.{name}: {where}  {reason}", soft_wrap=True)
    found["optimizers"].sort(key=lambda each: each["name"])
    return found


class _Trial:
    """A trial in a process of its own: packages change global settings, and may crash.

    Attributes:
        receiver: Ready once the trial has ended.
        name: The class.
        deadline: When it is given up, by the monotonic clock.
    """

    def __init__(self, package: str, name: str, seconds: int) -> None:
        context = multiprocessing.get_context("fork")
        self.receiver, sender = context.Pipe(duplex=False)
        self.name = name
        self.deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._process = context.Process(target=_send, args=(package, name, sender))
        self._process.start()
        sender.close()

    def outcome(self) -> Outcome:
        """Return the outcome; the process is ended."""
        where: Where
        try:
            if self.receiver.poll():
                outcome: Outcome = self.receiver.recv()
                return outcome
            where, reason = "not judged", f"it takes more than {self._seconds} s"
        except EOFError:
            self._process.join()
            where, reason = "wrong", f"its process ends with the status {self._process.exitcode}"
        finally:
            self._process.kill()
            self._process.join()
            self.receiver.close()
        return Outcome(
            name=self.name,
            where=where,
            reason=reason,
            deviation=None,
            measured=False,
            starts_late=False,
            steps="",
        )


def _in_processes(
    package: str, names: Sequence[str], count: int, seconds: int
) -> Iterator[Outcome]:
    """Try optimizers, several at the same time, each for so many seconds at most."""
    waiting = list(reversed(names))
    running: list[_Trial] = []
    while waiting or running:
        while waiting and len(running) < count:
            running.append(_Trial(package, waiting.pop(), seconds))
        ready = wait([trial.receiver for trial in running], timeout=1.0)
        for trial in list(running):
            if trial.receiver in ready or time.monotonic() > trial.deadline:
                running.remove(trial)
                yield trial.outcome()


def _send(package: str, name: str, sender: Connection) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # some print
    sender.send(try_optimizer(package, name))

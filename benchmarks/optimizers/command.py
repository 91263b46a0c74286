"""``python -m benchmarks optimizers``: on which optimizers multipliers act, and where."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Annotated, TypedDict

import torch
import typer
from rich.console import Console

from benchmarks.optimizers.packages import PACKAGES, installed_version, optimizers_in
from benchmarks.optimizers.trial import STEPS, TOLERANCE, Outcome, try_optimizer
from benchmarks.options import one_of
from benchmarks.provenance import AsJson, Out, emit

_SECONDS = 120  # for one optimizer
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
    separate: Annotated[
        bool, typer.Option(help="Try each optimizer in a process of its own.")
    ] = True,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Train with each optimizer of the installed packages, and compare steps with multipliers."""
    torch.set_num_threads(1)
    logging.getLogger("fslr").setLevel(logging.ERROR)
    found = {
        each: _of_package(each, set(name or ()), separate=separate) for each in package or PACKAGES
    }
    figures = {"packages": found, "steps": STEPS, "tolerance": TOLERANCE}
    emit(figures, as_json=as_json, out=out)
    if not as_json:
        for each, outcomes in found.items():
            counts = Counter(outcome["where"] for outcome in outcomes["optimizers"])
            words = ", ".join(f"{where}: {count}" for where, count in counts.items())
            Console().print(f"{each} {outcomes['version'] or ''}: {words or outcomes['missing']}")


def _of_package(package: str, names: set[str], *, separate: bool) -> PackageOutcomes:
    found = PackageOutcomes(version=installed_version(package), missing="", optimizers=[])
    if found["version"] is None:
        return {**found, "missing": "not installed"}
    try:
        kinds = optimizers_in(package)
    except Exception as error:  # noqa: BLE001 - what a package raises when its libraries are missing
        return {**found, "missing": f"{type(error).__name__}: {error}"}
    run = _in_a_process if separate else try_optimizer
    for name in kinds:
        if not names or name in names:
            outcome = run(package, name)
            found["optimizers"].append(outcome)
            _console.print(f"{package}.{name}: {outcome['where']}  {outcome['reason']}")
    return found


def _in_a_process(package: str, name: str) -> Outcome:
    """Try an optimizer in a process of its own: packages change global settings, and may crash."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(try_optimizer, package, name, sender))
    process.start()
    sender.close()
    try:
        if receiver.poll(_SECONDS):
            outcome: Outcome = receiver.recv()
            return outcome
        reason = f"it takes more than {_SECONDS} s"
    except EOFError:
        process.join()
        reason = f"its process ends with the status {process.exitcode}"
    finally:
        process.kill()
        process.join()
    return Outcome(
        name=name,
        where="wrong",
        reason=reason,
        deviation=None,
        measured=False,
        starts_late=False,
        steps="",
    )


def _send(run: Callable[[str, str], Outcome], package: str, name: str, sender: Connection) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # some print
    sender.send(run(package, name))

"""``python -m benchmarks transfer``: run cases, print them, and write each record as it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from benchmarks.options import Processes, Resume, one_of
from benchmarks.provenance import AsJson, provenance
from benchmarks.transfer.bench import PROCESSES, THREADS, Bench
from benchmarks.transfer.case_sweeps import CaseSweeps
from benchmarks.transfer.cases import AXES, CASES, LARGER, PARTS, Case, chosen_cases
from benchmarks.transfer.cases import quick as quick_form
from benchmarks.transfer.duration import expected_s
from benchmarks.transfer.finished import FinishedTrainings
from benchmarks.transfer.methods import DEFAULT, METHODS, STANDARD, MethodName, equals, method_of
from benchmarks.transfer.optimizers import OPTIMIZERS
from benchmarks.transfer.printing import print_document
from benchmarks.transfer.progress import bench_with_progress
from benchmarks.transfer.records import (
    Record,
    base_of,
    case_name,
    identity,
    methods_of,
    same_case,
    with_interval,
)
from benchmarks.transfer.results import (
    base_record,
    document,
    is_finished,
    load,
    merged,
    method_record,
    referred_to,
    save,
    transferred_octave,
    with_figures,
)
from benchmarks.transfer.settings import MODELS

_QUICK_METHODS: tuple[MethodName, ...] = ("standard", "measured", DEFAULT)

_LARGER_METHODS: tuple[MethodName, ...] = ("standard", "depth_mup", "measured", DEFAULT)

_console = Console(stderr=True)


class _Todo(NamedTuple):
    """A case with the methods that are to be run."""

    case: Case
    methods: Sequence[MethodName]


def transfer(
    axis: Annotated[
        str | None,
        typer.Option(help=f"What is scaled: {', '.join(AXES)}.", callback=one_of(AXES)),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(MODELS)}.", callback=one_of(MODELS))
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(OPTIMIZERS)}.", callback=one_of(OPTIMIZERS)),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"One of {', '.join(METHODS)}. Can be given several times. Default: all; with "
            f"--quick {', '.join(_QUICK_METHODS)}; with --larger {', '.join(_LARGER_METHODS)}.",
            callback=one_of(METHODS),
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Use two seeds, fewer steps, whole octaves, one small case per axis (5 min).",
        ),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            help=f"Only the cases of a part that fits a night: {', '.join(PARTS)}.",
            callback=one_of(PARTS),
        ),
    ] = None,
    larger: Annotated[
        bool,
        typer.Option(
            "--larger",
            help="Run the larger case instead: 27 million parameters, tokens, one seed (hours).",
        ),
    ] = False,
    as_json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to merge finished records into. Those that it already has are skipped."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also run what the file already has.")
    ] = False,
    resume: Resume = None,
    processes: Processes = PROCESSES,
) -> None:
    """Sweep learning rates on bases and on scaled models, with each way to transfer them."""
    cases = _chosen(axis, model, optimizer, part, is_quick=quick, is_larger=larger)
    is_fine = not (quick or larger)
    usual = _QUICK_METHODS if quick else _LARGER_METHODS if larger else METHODS
    names = [name for name in METHODS if name in (method or usual)]
    bases, records, source = ([], [], {}) if out is None else _loaded(out)
    if quick and any(not _is_quick(old) for old in records):
        raise typer.BadParameter(
            f"{out} has full cases, which --quick would replace; use a different file"
        )
    known = [] if again else records
    todo = _todo(cases, names, known)
    _announce(cases, todo, out, processes, is_fine=is_fine)
    if todo or not source:  # taken before the runs, so that it is the commit of this code
        chosen_by = ("--axis", "--model", "--optimizer", "--part", "--method", "--resume")
        note = {key: source[key] for key in ("note",) if key in source}  # written by hand
        source = {
            **provenance(without=chosen_by if records else ("--resume",)),
            "threads": THREADS,
            "processes": processes,
            **note,
        }
    for base, new in _run(todo, processes, resume, bases, known, is_fine=is_fine):
        commit = new.get("commit", source["commit"])  # a copied record has its own
        bases, records = merged(bases, base), merged(records, {**new, "commit": commit})
        if new["method"] == STANDARD:
            records = referred_to(records, base, new)
        if out is not None:
            save(out, document(bases, records, source))
    # Print only what was asked for, even if the file has more.
    wanted = [identity(case) for case in cases]
    content = document(
        [old for old in bases if any(same_case(old, each) for each in wanted)],
        [
            old
            for old in records
            if old["method"] in names and any(same_case(old, each) for each in wanted)
        ],
        source,
    )
    if as_json:
        typer.echo(json.dumps(content, indent=1, allow_nan=False))
    else:
        print_document(content)


def _loaded(out: Path) -> tuple[list[Record], list[Record], Record]:
    """Return the content of a file.

    Raises:
        BadParameter: It has a different form.
    """
    try:
        return load(out)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _is_quick(old: Record) -> bool:
    return any(same_case(old, identity(quick_form(case))) for case in (*CASES, LARGER))


def _chosen(
    axis: str | None,
    model: str | None,
    optimizer: str | None,
    part: str | None,
    *,
    is_quick: bool,
    is_larger: bool,
) -> list[Case]:
    """Return the cases that were asked for.

    Raises:
        BadParameter: There are none, or the larger case is asked for together with others.
    """
    if is_larger:
        if axis or model or optimizer or part:
            raise typer.BadParameter(
                "--larger is one case; leave out --axis, --model, --optimizer and --part"
            )
        return [quick_form(LARGER) if is_quick else LARGER]
    cases = chosen_cases(axis, model, optimizer, part, is_quick=is_quick)
    if not cases:
        raise typer.BadParameter(
            "no case has this axis, model, optimizer and part; leave out one of them, or choose "
            "from: " + "; ".join(case.name for case in CASES)
        )
    return cases


def _todo(
    cases: Sequence[Case], names: Sequence[MethodName], records: Sequence[Record]
) -> list[_Todo]:
    """Return what is to be run: the standard method, which regrets need, and those asked for."""
    found = []
    for case in cases:
        missing = [
            name
            for name in names
            if method_of(name, case) is not None and not is_finished(case, name, records)
        ]
        if missing and STANDARD not in missing and not is_finished(case, STANDARD, records):
            missing = [STANDARD, *missing]
        if missing:
            found.append(_Todo(case, missing))
    return found


def _announce(
    cases: Sequence[Case], todo: Sequence[_Todo], out: Path | None, processes: int, *, is_fine: bool
) -> None:
    """Print how many cases are finished, and how long the others take."""
    if len(todo) < len(cases):
        _console.print(f"Already in {out}: {_count(len(cases) - len(todo))}.", soft_wrap=True)
    if todo:
        minutes = (
            sum(
                expected_s(each.case, len(each.methods), processes, is_fine=is_fine)
                for each in todo
            )
            / 60
        )
        _console.print(f"To run: {_count(len(todo))}, about {minutes:.1f} minutes.")


def _count(cases: int) -> str:
    return "1 case" if cases == 1 else f"{cases} cases"


def _run(
    todo: Sequence[_Todo],
    processes: int,
    resume: Path | None,
    bases: Sequence[Record],
    records: Sequence[Record],
    *,
    is_fine: bool,
) -> Iterator[tuple[Record, Record]]:
    """Run methods one after the other, with a progress bar; yields records of base and method."""
    if not todo:
        return
    finished = None if resume is None else FinishedTrainings(resume)
    with bench_with_progress("transfer", _console, processes=processes, finished=finished) as bench:
        for case, methods in todo:
            yield from _run_case(bench, case, methods, bases, records, is_fine=is_fine)


def _run_case(
    bench: Bench,
    case: Case,
    methods: Sequence[MethodName],
    bases: Sequence[Record],
    records: Sequence[Record],
    *,
    is_fine: bool,
) -> Iterator[tuple[Record, Record]]:
    sweeps = CaseSweeps(bench, case, is_fine=is_fine)
    wanted = identity(case)
    old_base, own = base_of(wanted, bases), methods_of(wanted, records)
    standard = own.get(STANDARD)
    for name in methods:
        equal = next((own[each] for each in equals(name, case) if each in own), None)
        if old_base is not None and equal is not None:
            yield old_base, {**equal, "method": name}
            continue
        begun = time.monotonic()
        base = base_record(case, sweeps.base)
        big = sweeps.big(name)
        new = method_record(case, name, big, transferred_octave(sweeps.base))
        if name == STANDARD or standard is None:
            standard = new
        found = with_figures(new, base, standard)
        _console.print(_line(found, time.monotonic() - begun))
        yield base, found


def _line(new: Record, seconds: float) -> str:
    return (
        f"{case_name(new)}, {new['method']}: shift {with_interval(new, 'shift', '+.2f')} "
        f"({new['verdict']}), regret {with_interval(new, 'regret', '+.3f')}, {seconds:.0f} s"
    )

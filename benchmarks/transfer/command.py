"""``python -m benchmarks transfer``: run cases, print them, and write each one as it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.markdown import number
from benchmarks.options import one_of
from benchmarks.provenance import AsJson, provenance
from benchmarks.transfer.bench import PROCESSES, THREADS
from benchmarks.transfer.cases import AXES, CASES, Case, chosen_cases
from benchmarks.transfer.duration import expected_s
from benchmarks.transfer.notes import note_on
from benchmarks.transfer.optimizers import OPTIMIZERS
from benchmarks.transfer.progress import bench_with_progress
from benchmarks.transfer.results import Record, document, is_finished, load, merged, record, save
from benchmarks.transfer.settings import MODELS
from benchmarks.transfer.sweeps import sweep_case

_FILE_WIDTH = 150  # characters

_console = Console(stderr=True)


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
    quick: Annotated[
        bool, typer.Option("--quick", help="Use one seed, fewer steps, and one case per axis.")
    ] = False,
    as_json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to merge finished cases into. Cases that it already has are skipped."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also run cases that the file already has.")
    ] = False,
    processes: Annotated[
        int, typer.Option(help="Trainings to run in parallel, with one thread each.", min=1)
    ] = PROCESSES,
) -> None:
    """Sweep learning rates on bases and on scaled models, plain and advised by the service."""
    cases = _chosen(axis, model, optimizer, is_quick=quick)
    records, source = ([], {}) if out is None else load(out)
    if quick and any(len(old["seeds"]) > 1 for old in records):
        raise typer.BadParameter(
            f"{out} has cases with several seeds, which --quick would replace; use a different file"
        )
    waiting = [case for case in cases if again or not is_finished(case, records)]
    _announce(cases, waiting, out, processes)
    if waiting or not source:  # taken before the runs, so that it is the commit of this code
        chosen_by = ("--axis", "--model", "--optimizer") if records else ()  # other cases are kept
        source = {**provenance(without=chosen_by), "threads": THREADS, "processes": processes}
    for new in _run(waiting, processes):
        records = merged(records, {**new, "commit": source["commit"]})
        if out is not None:
            save(out, document(records, source))
    # Print only the cases that were asked for, even if the file has more.
    names = {case.name for case in cases}
    content = document([record for record in records if _name(record) in names], source)
    if as_json:
        typer.echo(json.dumps(content, indent=1, allow_nan=False))
    else:
        _print(content)


def _chosen(
    axis: str | None, model: str | None, optimizer: str | None, *, is_quick: bool
) -> list[Case]:
    """Return the cases that were asked for.

    Raises:
        BadParameter: There are none.
    """
    cases = chosen_cases(axis, model, optimizer, is_quick=is_quick)
    if not cases:
        raise typer.BadParameter(
            "no case has this axis, model and optimizer; leave out one of them, or choose from: "
            + "; ".join(case.name for case in CASES)
        )
    return cases


def _announce(
    cases: Sequence[Case], waiting: Sequence[Case], out: Path | None, processes: int
) -> None:
    """Print how many cases are finished, and how long the others take."""
    if len(waiting) < len(cases):
        _console.print(f"Already in {out}: {_count(len(cases) - len(waiting))}.", soft_wrap=True)
    if waiting:
        minutes = sum(expected_s(case, processes) for case in waiting) / 60
        _console.print(f"To run: {_count(len(waiting))}, about {minutes:.1f} minutes.")


def _count(cases: int) -> str:
    return "1 case" if cases == 1 else f"{cases} cases"


def _name(old: Record) -> str:
    return f"{old['axis']} {old['model']} {old['optimizer']}"


def _run(cases: Sequence[Case], processes: int) -> Iterator[Record]:
    """Run cases one after the other, with a progress bar."""
    if not cases:
        return
    with bench_with_progress("transfer", _console, processes=processes) as bench:
        for case in cases:
            begun = time.monotonic()
            new = record(case, sweep_case(bench, case))
            new["seconds"]["case"] = time.monotonic() - begun
            _console.print(_line(new))
            yield new


def _line(new: Record) -> str:
    return (
        f"{_name(new)}: shift plain {_octaves(new['shift_plain'])}, advised "
        f"{_octaves(new['shift_advised'])}, regret {number(new['regret'], '+.3f')}, "
        f"{new['seconds']['case']:.0f} s"
    )


def _print(content: Record) -> None:
    table = Table(
        "case", "base's best learning rate", "shift plain", "shift advised", "regret", "loss plain",
        "loss advised", "best plain", "saved at first", "saved later",
    )  # fmt: skip
    table.columns[0].no_wrap = True
    for case in content["cases"]:
        advised = _octaves(case["shift_advised"])
        missed = case["shift_advised"] is None or abs(case["shift_advised"]) > 1
        spread = case["spread"]["regret"]
        table.add_row(
            _name(case),
            number(case["base_learning_rate"], ".4g"),
            _octaves(case["shift_plain"]),
            f"[red]{advised}[/]" if missed else advised,
            number(case["regret"], "+.3f") + ("" if spread is None else f" ± {spread:.3f}"),
            number(case["loss_plain"], ".3f"),
            number(case["loss_advised"], ".3f"),
            number(case["loss_best_plain"], ".3f"),
            number(case["search_saved_with_base"], ".0%"),
            number(case["search_saved"], ".0%"),
        )
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)
    console.print(
        "Shifts are in octaves. Regrets and losses are mean training losses over seeds, in nats. "
        "Saved: part of the search time that the base's sweep and one advised run save; later: "
        "that one advised run saves."
    )
    near, regret = content["within_one_octave"], content["median_regret"]
    console.print(
        f"Advised optimum within one octave of the base's: {number(near, '.0%')} of "
        f"{len(content['cases'])} cases (target 90%). Median regret: {number(regret, '+.3f')} nats "
        "(target 0.02)."
    )
    for case in content["cases"]:
        if note := note_on(case):
            console.print(f"{_name(case)}: {note}")
        if case["at_edge"]:
            console.print(
                f"{_name(case)}: the optimum of {', '.join(case['at_edge'])} is at the edge of the "
                "sweep, so the shift is a lower bound."
            )


def _octaves(shift: int | None) -> str:
    return "diverged" if shift is None else f"{shift:+d}"

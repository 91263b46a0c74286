"""``python -m benchmarks base-widths``: is a narrow base why advice misses the optimum?

The cases of the transfer benchmark that scale the width, and whose best learning rate under advice
is more than an octave from the base's, are repeated with a base that is twice as wide. The big
model stays, so it is only half as many times wider. If each doubling of the width moved the optimum
alike, the shift would shrink with the number of doublings. If it shrinks faster, the narrow base is
the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypedDict

import typer

from benchmarks.options import Figures, Processes, Resume
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.report.paths import FIGURES
from benchmarks.transfer.bench import PROCESSES, THREADS, Bench
from benchmarks.transfer.case_sweeps import CaseSweeps
from benchmarks.transfer.cases import CASES, Case
from benchmarks.transfer.curves import Losses
from benchmarks.transfer.finished import FinishedTrainings
from benchmarks.transfer.methods import STANDARD, MethodName
from benchmarks.transfer.optimum import Transfer, Verdict, compare
from benchmarks.transfer.printing import print_folded
from benchmarks.transfer.progress import bench_with_progress
from benchmarks.transfer.records import (
    Record,
    as_list,
    base_of,
    identity,
    losses_of,
    methods_of,
    with_interval,
)
from benchmarks.transfer.results import load

ADVISED: Final[MethodName] = "measured"
_FACTOR: Final = 2  # how many times wider the other base is


class BaseRow(TypedDict):
    """A case with one of its bases.

    Attributes:
        name: Name of the case.
        base_width: Width of the base.
        big_width: Width of the big model.
        seeds: Number of seeds.
        octave: log2 of the base's best learning rate.
        octave_interval: Its 90% interval over seeds.
        shift: The shift of the best learning rate under advice, in octaves.
        shift_interval: Its 90% interval.
        verdict: Whether the shift is within an octave.
        regret: Loss of the big model under advice at the base's best learning rate, minus the best
            loss of the plain big model, in nats.
        regret_interval: Its 90% interval.
    """

    name: str
    base_width: int
    big_width: int
    seeds: int
    octave: float | None
    octave_interval: list[float] | None
    shift: float | None
    shift_interval: list[float] | None
    verdict: str
    regret: float | None
    regret_interval: list[float] | None


class MissedCase(NamedTuple):
    """A case whose shift under advice is beyond an octave, with the losses of its sweeps."""

    case: Case
    base: Losses
    advised: Losses
    plain: Losses


def base_widths(
    figures: Figures = FIGURES / "transfer.json",
    resume: Resume = None,
    processes: Processes = PROCESSES,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Repeat cases that advice misses with a base that is twice as wide (about 30 min)."""
    missed = missed_cases(*load(figures)[:2])
    if not missed:
        raise typer.BadParameter(
            f"{figures} has no case of the width whose shift with the method {ADVISED} is beyond "
            "an octave; run `python -m benchmarks transfer --axis width` with --out first"
        )
    finished = None if resume is None else FinishedTrainings(resume)
    with bench_with_progress("base widths", processes=processes, finished=finished) as bench:
        rows = [row for each in missed for row in rows_of(bench, each)]
    without = ("--processes", "--figures", "--resume")
    emit({"base_widths": rows}, as_json=as_json, out=out, without=without, threads=THREADS)
    if not as_json:
        print_folded(HEADS, cells_of(rows))


def missed_cases(bases: Sequence[Record], records: Sequence[Record]) -> list[MissedCase]:
    """Return the cases of the width whose shift under advice is beyond an octave.

    Args:
        bases: The records of bases.
        records: The records of methods.
    """
    found = []
    for case in CASES:
        wanted = identity(case)
        base, own = base_of(wanted, bases), methods_of(wanted, records)
        advised, plain = own.get(ADVISED), own.get(STANDARD)
        if case.axis != "width" or base is None or advised is None or plain is None:
            continue
        if advised["verdict"] == Verdict.BEYOND:
            found.append(MissedCase(case, *map(losses_of, (base, advised, plain))))
    return found


def rows_of(bench: Bench, missed: MissedCase) -> Iterator[BaseRow]:
    """Train a case with a wider base, and return a row for each base, the case's own first.

    Args:
        bench: Where to train.
        missed: The case.

    Yields:
        The rows.
    """
    case = missed.case
    yield row_of(case, compare(missed.base, missed.advised, missed.plain))
    wider = replace(case, base=replace(case.base, width=_FACTOR * case.base.width))
    sweeps = CaseSweeps(bench, wider, is_fine=True)
    advised = sweeps.big(ADVISED).losses
    yield row_of(wider, compare(sweeps.base.losses, advised, missed.plain))


def row_of(case: Case, found: Transfer) -> BaseRow:
    """Return the row of a case with its base.

    Args:
        case: The case.
        found: How well the base's best learning rate does.
    """
    return BaseRow(
        name=case.name,
        base_width=case.base.width,
        big_width=case.big.width,
        seeds=len(case.seeds),
        octave=found.base_octave,
        octave_interval=as_list(found.base_interval),
        shift=found.shift,
        shift_interval=as_list(found.shift_interval),
        verdict=found.verdict.value,
        regret=found.regret,
        regret_interval=as_list(found.regret_interval),
    )


def proportional_shift(row: BaseRow, first: BaseRow) -> float | None:
    """Return the shift if each doubling of the width moved the optimum alike, in octaves.

    Args:
        row: The row of a wider base.
        first: The row of the case's own base.
    """
    if first["shift"] is None:
        return None
    doublings, all_doublings = (
        math.log2(each["big_width"] / each["base_width"]) for each in (row, first)
    )
    return first["shift"] * doublings / all_doublings


HEADS: Final = (
    *("case", "width", "base's best, log2", "shift under advice, octaves"),
    *("if proportional", "regret, nats"),
)


def cells_of(rows: Sequence[BaseRow]) -> list[tuple[str, ...]]:
    """Return rows as text: case, widths, the base's optimum, shift, proportional shift, regret.

    Args:
        rows: The rows of all cases.
    """
    found: list[tuple[str, ...]] = []
    for row in rows:
        first = next(each for each in rows if each["name"] == row["name"])
        expected = proportional_shift(row, first)
        found.append((
            row["name"],
            f"{row['base_width']} to {row['big_width']}",
            with_interval(row, "octave", "+.2f"),
            with_interval(row, "shift", "+.2f"),
            "" if row is first or expected is None else f"{expected:+.2f}",
            with_interval(row, "regret", "+.3f"),
        ))
    return found

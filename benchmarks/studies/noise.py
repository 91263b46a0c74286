"""``python -m benchmarks noise``: do less noisy gradients explain where advice misses the optimum?

Advice lets the outputs of a big model move as far per step as the base's did. With more data per
step, or more steps, the same model can have gradients with more or less noise, which rates do not
show. Trainings without advice say how much of a gradient is signal, and so by how much the best
step should change (:mod:`benchmarks.studies.signal`). That is compared with the shift under advice.
Cases of other axes are looked at if their shift is beyond an octave. Their big model trains with
depth-muP, since its plain learning rate would be far too high.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final, NamedTuple, TypedDict

import typer

from benchmarks.options import Figures, Processes
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.report.paths import FIGURES
from benchmarks.studies.signal import signal
from benchmarks.transfer.bench import PROCESSES, THREADS
from benchmarks.transfer.cases import CASES, AxisName, Case
from benchmarks.transfer.curves import half_width
from benchmarks.transfer.methods import DEFAULT, MethodName, method_of
from benchmarks.transfer.optimum import Verdict, optimum
from benchmarks.transfer.parametrization import Standard
from benchmarks.transfer.printing import print_folded
from benchmarks.transfer.records import (
    Record,
    base_of,
    identity,
    losses_of,
    methods_of,
    with_interval,
)
from benchmarks.transfer.results import load
from benchmarks.transfer.training import Training, start_worker

AXES_OF_DATA: Final[tuple[AxisName, ...]] = ("batch_size", "sequence_length", "duration")
"""The axes on which base and big model differ in their data only."""

_RULE: Final[MethodName] = "depth_mup"  # changes nothing on the axes of data


class NoiseRow(TypedDict):
    """A case with the shift that noise predicts.

    Attributes:
        name: Name of the case.
        axis: What is scaled.
        steps: Optimizer steps of the big model.
        seeds: Number of seeds.
        signal_of_base: Which part of a squared gradient is signal, at the base's best learning
            rate; the mean over seeds.
        signal_of_big: The same of the big model with depth-muP, at the same learning rate.
        predicted: By how many octaves the best step changes according to these.
        predicted_interval: Its 90% interval over seeds.
        shift: The shift of the best learning rate under advice, in octaves.
        shift_interval: Its 90% interval; None if it is not known.
    """

    name: str
    axis: str
    steps: int
    seeds: int
    signal_of_base: float
    signal_of_big: float
    predicted: float
    predicted_interval: list[float]
    shift: float | None
    shift_interval: list[float] | None


class _Measured(NamedTuple):
    """A case with its best learning rate and its record under advice."""

    case: Case
    octave: float
    advised: Record


def noise(
    figures: Figures = FIGURES / "transfer.json",
    processes: Processes = PROCESSES,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Compare shifts under advice with those that the noise of gradients predicts (about 5 min)."""
    found = measured_cases(*load(figures)[:2])
    if not found:
        raise typer.BadParameter(
            f"{figures} has no case of {', '.join(AXES_OF_DATA)} with the method {DEFAULT}; "
            "run `python -m benchmarks transfer` with --out first"
        )
    plans = [pair for each in found for pair in trainings_of(each.case, each.octave)]
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=start_worker
    ) as pool:
        signals = iter(list(pool.map(signal, [each for pair in plans for each in pair])))
    rows = []
    for each in found:
        pairs = [(next(signals), next(signals)) for _ in each.case.seeds]
        rows.append(row_of(each.case, pairs, each.advised))
    without = ("--processes", "--figures")
    emit({"noise": rows}, as_json=as_json, out=out, without=without, threads=THREADS)
    if not as_json:
        print_folded(HEADS, [cells_of(row) for row in rows])


def measured_cases(bases: Sequence[Record], records: Sequence[Record]) -> list[_Measured]:
    """Return the cases that are looked at, of those with records in their present form.

    These are the cases of :data:`AXES_OF_DATA`, and those that miss the optimum by over an octave.

    Args:
        bases: The records of bases.
        records: The records of methods.
    """
    found = []
    for case in CASES:
        wanted = identity(case)
        base, advised = base_of(wanted, bases), methods_of(wanted, records).get(DEFAULT)
        octave = None if base is None else optimum(losses_of(base))
        if octave is None or advised is None or method_of(_RULE, case) is None:
            continue
        if case.axis in AXES_OF_DATA or advised["verdict"] == Verdict.BEYOND:
            found.append(_Measured(case, octave, advised))
    return sorted(found, key=lambda each: each.case.axis not in AXES_OF_DATA)


def trainings_of(case: Case, octave: float) -> list[tuple[Training, Training]]:
    """Return trainings of base and big model without advice, for each seed.

    Args:
        case: The case.
        octave: log2 of the base's best learning rate, at which both train.
    """
    rule = method_of(_RULE, case)
    parametrization = Standard() if rule is None else rule.parametrization

    def training(seed: int, *, is_base: bool) -> Training:
        return Training(
            case.base if is_base else case.big,
            case.base,
            case.optimizer,
            2.0**octave,
            case.steps_of_base if is_base else case.steps,
            seed,
            weight_decay=case.weight_decay,
            parametrization=Standard() if is_base else parametrization,
        )

    return [(training(seed, is_base=True), training(seed, is_base=False)) for seed in case.seeds]


def row_of(case: Case, signals: Sequence[tuple[float, float]], advised: Record) -> NoiseRow:
    """Return the row of a case.

    Args:
        case: The case.
        signals: The signal of base and big model, for each of at least two seeds.
        advised: The record under advice.

    Raises:
        ValueError: A signal is not positive, so that it predicts nothing.
    """
    if any(of_base <= 0 or of_big <= 0 for of_base, of_big in signals):
        raise ValueError(
            f"{case.name}: the signal of a gradient is not positive in {list(signals)}; "
            "train with more batches"
        )
    # The best step grows with the root of the signal.
    octaves = [0.5 * math.log2(of_big / of_base) for of_base, of_big in signals]
    mean, count = statistics.fmean(octaves), len(octaves)
    half = half_width(statistics.stdev(octaves) / math.sqrt(count), count - 1)
    return NoiseRow(
        name=case.name,
        axis=case.axis,
        steps=case.steps,
        seeds=count,
        signal_of_base=statistics.fmean(of_base for of_base, _ in signals),
        signal_of_big=statistics.fmean(of_big for _, of_big in signals),
        predicted=mean,
        predicted_interval=[mean - half, mean + half],
        shift=advised["shift"],
        shift_interval=advised["shift_interval"],
    )


def cells_of(row: NoiseRow) -> tuple[str, ...]:
    """Return a row as text: case, steps, signals of both, predicted and actual shift."""
    return (
        row["name"],
        f"{row['steps']:,}",
        f"{row['signal_of_base']:.1%}",
        f"{row['signal_of_big']:.1%}",
        with_interval(row, "predicted", "+.2f"),
        with_interval(row, "shift", "+.2f"),
    )


HEADS: Final = (
    *("case", "steps", "signal of the base", "of the big model"),
    *("predicted shift, octaves", "shift under advice, octaves"),
)

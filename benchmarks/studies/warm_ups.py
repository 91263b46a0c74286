"""``python -m benchmarks warm-ups``: what a reference with a different warm-up costs.

For setups of the practice benchmark, big models are advised with recordings of bases that warm up
for longer or shorter than they do. The steps of a recording are compared with equal steps of the
run, or at **equal exposure**: with the steps at which the run's learning rates add up to as much as
the base's. A recording with the run's own warm-up is the yardstick.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import accumulate
from typing import Literal, TypedDict

import numpy as np
from rich.console import Console
from rich.table import Table

from advisor.registry.profiles import ProfileContent
from advisor.wire import content_to_proto
from benchmarks.options import Processes, Resume
from benchmarks.practice.procedures import schedule_factor
from benchmarks.practice.running import SEEDS, Rows, base_at_best, of_setups, record_all, train_all
from benchmarks.practice.setups import Procedure, Setup
from benchmarks.practice.store import Store
from benchmarks.practice.training import Advice, Training
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.transfer.bench import PROCESSES, THREADS

Comparison = Literal["own warm-up", "equal steps", "equal exposure"]

_SETUPS = ("pytorch", "gpt2-tied", "zero-projections")
_WARM_UPS = ((0.03, 0.3), (0.3, 0.03))  # of base and run


class WarmUpRow(TypedDict):
    """Figures of a comparison of steps in a setup.

    Attributes:
        setup: The setup.
        base_warm_up: Part of the base's steps over which its learning rate rises.
        warm_up: The same for the run.
        comparison: How the steps of base and run are compared.
        loss: Mean loss of the advised big models, in nats.
        change: Mean difference from the loss with a recording of the run's own warm-up.
        error: Standard error of that difference over seeds.
    """

    recipe: str
    base_warm_up: float
    warm_up: float
    comparison: Comparison
    loss: float
    change: float
    error: float


def warm_ups(
    rows: Rows = None,
    resume: Resume = None,
    processes: Processes = PROCESSES,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Compare references of bases that warm up differently, at equal steps and equal exposure."""
    found = of_setups(rows, _SETUPS, _measured, Store(resume), processes)
    figures = {"warm_ups": found, "seeds": len(SEEDS), "processes": processes}
    emit(figures, as_json=as_json, out=out, without=("--resume", "--processes"), threads=THREADS)
    if not as_json:
        _print(found)


def _measured(setup: Setup, store: Store, pool: Executor) -> list[WarmUpRow]:
    """Return the rows of a setup."""
    return [row for pair in _WARM_UPS for row in _compared(setup, *pair, store, pool)]


def _compared(
    setup: Setup, of_base: float, of_run: float, store: Store, pool: Executor
) -> list[WarmUpRow]:
    """Return the rows of a setup and a pair of warm-ups; all train at the same learning rate."""
    procedure = dataclasses.replace(setup.procedure, warm_up=of_run)
    own = base_at_best(dataclasses.replace(setup, procedure=procedure), store, pool)
    other = dataclasses.replace(
        own, procedure=dataclasses.replace(setup.procedure, warm_up=of_base)
    )
    recorded = record_all(other, store, pool)
    recordings: dict[Comparison, list[ProfileContent]] = {
        "own warm-up": record_all(own, store, pool),
        "equal steps": recorded,
        "equal exposure": [
            at_equal_exposure(each, other.procedure, procedure) for each in recorded
        ],
    }
    big = dataclasses.replace(own, size=setup.big, hidden_scale=1.0, is_recorded=False)
    losses = {
        comparison: _advised_losses(big, contents, store, pool)
        for comparison, contents in recordings.items()
    }
    rows = []
    for comparison, found in losses.items():
        changes = [a - b for a, b in zip(found, losses["own warm-up"], strict=True)]
        rows.append(
            WarmUpRow(
                recipe=setup.name,
                base_warm_up=of_base,
                warm_up=of_run,
                comparison=comparison,
                loss=statistics.fmean(found),
                change=statistics.fmean(changes),
                error=statistics.stdev(changes) / len(changes) ** 0.5,
            )
        )
    return rows


def _advised_losses(
    big: Training, contents: Sequence[ProfileContent], store: Store, pool: Executor
) -> list[float]:
    """Return the loss of a big model by seed, advised with one recording for each seed."""
    trainings = []
    for seed, content in zip(SEEDS, contents, strict=True):
        advice = Advice(content_to_proto(content).SerializeToString(deterministic=True))
        trainings.append(dataclasses.replace(big, seed=seed, advice=advice))
    return [trained.loss for trained in train_all(trainings, store, pool)]


def at_equal_exposure(content: ProfileContent, base: Procedure, run: Procedure) -> ProfileContent:
    """Return a recording whose steps are those at which a run has learned as much as the base had.

    Args:
        content: The recording.
        base: How the base was trained.
        run: How the run is trained, at the same peak learning rate.
    """
    of_base, of_run = (
        [0.0, *accumulate(schedule_factor(procedure, step) for step in range(procedure.steps))]
        for procedure in (base, run)
    )
    steps = np.interp(
        [of_base[step] for step in content.steps], of_run, np.arange(len(of_run))
    ).round()
    # Points that the run never reaches, or that fall on the step of an earlier one, are dropped.
    kept = np.flatnonzero((np.diff(steps, prepend=-1.0) > 0) & (steps < run.steps))
    values = {
        field.name: value[kept]
        for field in dataclasses.fields(content)
        if isinstance(value := getattr(content, field.name), np.ndarray)
    }
    return dataclasses.replace(content, **{**values, "steps": steps[kept].astype(np.int64)})


def _print(rows: list[WarmUpRow]) -> None:
    table = Table("setup", "base warms up", "run warms up", "compared at", "loss", "change")
    for row in rows:
        table.add_row(
            row["recipe"],
            f"{row['base_warm_up']:.0%}",
            f"{row['warm_up']:.0%}",
            row["comparison"],
            f"{row['loss']:.3f}",
            f"{row['change']:+.3f} ± {2 * row['error']:.3f}",
        )
    Console().print(table)

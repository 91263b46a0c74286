"""``python -m benchmarks references``: what smoothing and merging do to references.

For setups of the practice benchmark, the base is recorded with several seeds at its best learning
rate. For each seed, the **references** are the recording of the next seed and the merge of all
other seeds, as recorded and smoothed. A reference's distance is the mean difference of its
logarithms from the recording of that seed, from a fifth of the training on. Its loss is that of the
big model of that seed, advised with it.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TypedDict

import numpy as np
from rich.console import Console
from rich.table import Table

from advisor.policy import Policy, Profile, Reference
from advisor.registry.merging import merge
from advisor.registry.profiles import ProfileContent
from advisor.wire import content_to_proto, policy_to_proto
from benchmarks.options import Processes, Resume
from benchmarks.practice.running import SEEDS, Rows, base_at_best, of_setups, record_all, train_all
from benchmarks.practice.setups import Setup
from benchmarks.practice.store import Store
from benchmarks.practice.training import Advice
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.transfer.bench import PROCESSES, THREADS

SMOOTHING = 0.75  # half the width of the window, in logarithms of the step
_SETUPS = ("pytorch", "gpt2-tied")
_SETTLED = 0.2  # fraction of the training from which on distances count


class ReferenceRow(TypedDict):
    """Figures of a kind of reference in a setup.

    Attributes:
        setup: The setup.
        recordings: Number of recordings that each reference is made of.
        smoothing: Half the width of the smoothing window; 0: as recorded.
        distance: Mean difference of logarithms from a recording of a different seed.
        loss: Mean loss of the advised big models, in nats.
        worst: The highest of these losses.
    """

    recipe: str
    recordings: int
    smoothing: float
    distance: float
    loss: float
    worst: float


def references(
    rows: Rows = None,
    resume: Resume = None,
    processes: Processes = PROCESSES,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Compare references of one recording and of merged seeds, as recorded and smoothed."""
    found = of_setups(rows, _SETUPS, _measured, Store(resume), processes)
    figures = {"references": found, "seeds": len(SEEDS), "processes": processes}
    emit(figures, as_json=as_json, out=out, without=("--resume", "--processes"), threads=THREADS)
    if not as_json:
        _print(found)


def _measured(setup: Setup, store: Store, pool: Executor) -> list[ReferenceRow]:
    """Return the rows of a setup."""
    at_best = base_at_best(setup, store, pool)
    recordings = record_all(at_best, store, pool)
    big = dataclasses.replace(at_best, size=setup.big, hidden_scale=1.0, is_recorded=False)
    kinds = [(count, smoothing) for count in (1, len(SEEDS) - 1) for smoothing in (0.0, SMOOTHING)]
    contents = [
        [_made_of(_others(recordings, seed)[:count]) for seed in range(len(SEEDS))]
        for count, _smoothing in kinds
    ]
    advised = [
        dataclasses.replace(big, seed=seed, advice=_advice(content, smoothing))
        for (_count, smoothing), made in zip(kinds, contents, strict=True)
        for seed, content in zip(SEEDS, made, strict=True)
    ]
    results = iter(train_all(advised, store, pool))
    rows = []
    for (count, smoothing), made in zip(kinds, contents, strict=True):
        own = [next(results).loss for _seed in SEEDS]
        distances = [
            distance(content.profile(), recording.profile(), smoothing=smoothing)
            for content, recording in zip(made, recordings, strict=True)
        ]
        rows.append(
            ReferenceRow(
                recipe=setup.name,
                recordings=count,
                smoothing=smoothing,
                distance=statistics.fmean(distances),
                loss=statistics.fmean(own),
                worst=max(own),
            )
        )
    return rows


def distance(reference: Profile, recording: Profile, *, smoothing: float) -> float:
    """Return the mean absolute difference of the logarithms of unit rates above 0.

    Args:
        reference: The reference.
        recording: What it is compared with, as recorded; it has the same groups.
        smoothing: Half the width of the window over which the reference is smoothed; 0: it is not.
    """
    smoothed, plain = Reference(reference, smoothing=smoothing), Reference(recording)
    steps = [step for step in recording.steps if step >= _SETTLED * recording.total_steps]
    rates = np.array([[each.at(step) for step in steps] for each in (smoothed, plain)])
    known = (rates > 0).all(axis=0)
    logs = np.log(np.where(rates > 0, rates, 1.0))
    return float(np.abs(logs[0] - logs[1])[known].mean())


def _others(recordings: Sequence[ProfileContent], seed: int) -> list[ProfileContent]:
    """Return the recordings of the other seeds, the next one first."""
    return [*recordings[seed + 1 :], *recordings[:seed]]


def _made_of(recordings: Sequence[ProfileContent]) -> ProfileContent:
    return recordings[0] if len(recordings) == 1 else merge(recordings)


def _advice(content: ProfileContent, smoothing: float) -> Advice:
    policy = policy_to_proto(Policy(reference_smoothing=smoothing))
    return Advice(
        content_to_proto(content).SerializeToString(deterministic=True),
        policy.SerializeToString(deterministic=True),
    )


def _print(rows: Sequence[ReferenceRow]) -> None:
    table = Table("setup", "recordings", "smoothing", "distance", "loss", "worst loss")
    for row in rows:
        table.add_row(
            row["recipe"],
            str(row["recordings"]),
            f"{row['smoothing']:g}",
            f"{row['distance']:.3f}",
            f"{row['loss']:.3f}",
            f"{row['worst']:.3f}",
        )
    Console().print(table)

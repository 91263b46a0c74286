"""Trainings of the practice benchmark for studies: run, and recorded at the best learning rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from advisor.registry.profiles import ProfileContent
from advisor.wire import content_from_proto
from benchmarks.options import one_of
from benchmarks.practice.battery import process_pool
from benchmarks.practice.setups import SETUPS, Setup
from benchmarks.practice.store import Store
from benchmarks.practice.training import Trained, Training, run_training
from benchmarks.transfer.figures import best_octave
from fslr.advisor.v1 import profile_pb2

SEEDS = (0, 1, 2)
NAMES = [setup.name for setup in SETUPS]
Rows = Annotated[
    list[str] | None,
    typer.Option(help="A setup. Can be given several times.", callback=one_of(NAMES)),
]
_Row = TypeVar("_Row")
_OCTAVES = (-5, -6, -7, -8)  # of the base

_console = Console(stderr=True)


def of_setups(
    rows: Sequence[str] | None,
    usual: Sequence[str],
    measure: Callable[[Setup, Store, Executor], Sequence[_Row]],
    store: Store,
    processes: int,
) -> list[_Row]:
    """Return the rows of a study of setups.

    Args:
        rows: Names of the setups; None: the usual ones.
        usual: Their names.
        measure: Returns the rows of a setup.
        store: Has the results of trainings.
        processes: Number of processes that train.
    """
    wanted = rows or usual
    with process_pool(processes) as pool:
        chosen = [setup for setup in SETUPS if setup.name in wanted]
        return [row for setup in chosen for row in measure(setup, store, pool)]


def base_at_best(setup: Setup, store: Store, pool: Executor) -> Training:
    """Return the training of a setup's base at its best learning rate, to be recorded.

    Args:
        setup: The setup.
        store: Has the results of trainings.
        pool: Where to train.

    Raises:
        RuntimeError: The base diverges at each learning rate.
    """
    base = Training(setup.architecture, setup.procedure, setup.base, setup.base_hidden_scale, 0, 0)
    swept = [
        dataclasses.replace(base, octave=octave, seed=seed) for octave in _OCTAVES for seed in SEEDS
    ]
    losses = iter(train_all(swept, store, pool))
    best = best_octave({octave: [next(losses).loss for _seed in SEEDS] for octave in _OCTAVES})
    if best is None:
        raise RuntimeError(f"{setup.name}: the base diverged at each learning rate")
    return dataclasses.replace(base, octave=best + setup.octaves_above, is_recorded=True)


def record_all(base: Training, store: Store, pool: Executor) -> list[ProfileContent]:
    """Return the recordings of a base, one for each seed.

    Args:
        base: The training.
        store: Has the results of trainings.
        pool: Where to train.
    """
    recorded = train_all([dataclasses.replace(base, seed=seed) for seed in SEEDS], store, pool)
    return [
        content_from_proto(profile_pb2.ProfileContent.FromString(each.profile)) for each in recorded
    ]


def train_all(trainings: Sequence[Training], store: Store, pool: Executor) -> list[Trained]:
    """Return the results of trainings; only those that the store does not have are run.

    Args:
        trainings: The trainings.
        store: Has the results of trainings.
        pool: Where to train.
    """
    missing = [training for training in trainings if store.get(training) is None]
    for training, trained in zip(missing, pool.map(run_training, missing), strict=True):
        store.put(training, trained)
        kind = "advised" if training.advice else "recorded" if training.is_recorded else "plain"
        _console.print(
            f"{kind}, width {training.size.width}, 2^{training.octave}, seed {training.seed}: "
            f"{trained.loss:.3f}"
        )
    found = [store.get(training) for training in trainings]
    return [trained for trained in found if trained is not None]

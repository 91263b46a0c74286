"""``python -m benchmarks references``: what smoothing and merging do to references.

For recipes of the practice benchmark, the base is recorded with several seeds at its best learning
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
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from advisor.policy import Policy, Profile, Reference
from advisor.registry.merging import merge
from advisor.registry.profiles import ProfileContent
from advisor.wire import content_from_proto, content_to_proto, policy_to_proto
from benchmarks.options import one_of
from benchmarks.practice.battery import process_pool
from benchmarks.practice.recipes import RECIPES, Recipe
from benchmarks.practice.store import Store
from benchmarks.practice.training import Advice, Trained, Training, run_training
from benchmarks.provenance import AsJson, Out, emit
from benchmarks.transfer.bench import PROCESSES, THREADS
from benchmarks.transfer.figures import best_octave
from fslr.advisor.v1 import profile_pb2

SMOOTHING = 0.75  # half the width of the window, in logarithms of the step
_SEEDS = (0, 1, 2)
_OCTAVES = (-5, -6, -7, -8)  # of the base
_RECIPES = ("pytorch", "gpt2-tied")
_NAMES = [recipe.name for recipe in RECIPES]
_SETTLED = 0.2  # fraction of the training from which on distances count

_console = Console(stderr=True)


class ReferenceRow(TypedDict):
    """Figures of a kind of reference in a recipe.

    Attributes:
        recipe: The recipe.
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
    rows: Annotated[
        list[str] | None,
        typer.Option(help="A recipe. Can be given several times.", callback=one_of(_NAMES)),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder for the results of trainings; those that it has are not run."),
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Trainings to run in parallel, with one thread each.", min=1)
    ] = PROCESSES,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Compare references of one recording and of merged seeds, as recorded and smoothed."""
    wanted = rows or _RECIPES
    store = Store(resume)
    with process_pool(processes) as pool:
        found = [
            row
            for recipe in RECIPES
            if recipe.name in wanted
            for row in _measured(recipe, store, pool)
        ]
    figures = {"references": found, "seeds": len(_SEEDS), "processes": processes}
    emit(figures, as_json=as_json, out=out, without=("--resume", "--processes"), threads=THREADS)
    if not as_json:
        _print(found)


def _measured(recipe: Recipe, store: Store, pool: Executor) -> list[ReferenceRow]:
    """Return the rows of a recipe."""
    base = Training(
        recipe.architecture, recipe.procedure, recipe.base, recipe.base_hidden_scale, 0, 0
    )
    swept = [
        dataclasses.replace(base, octave=octave, seed=seed)
        for octave in _OCTAVES
        for seed in _SEEDS
    ]
    losses = iter(_trained(swept, store, pool))
    best = best_octave({octave: [next(losses).loss for _seed in _SEEDS] for octave in _OCTAVES})
    if best is None:
        raise RuntimeError(f"{recipe.name}: the base diverged at each learning rate")
    at_best = dataclasses.replace(base, octave=best + recipe.octaves_above, is_recorded=True)
    recorded = _trained([dataclasses.replace(at_best, seed=seed) for seed in _SEEDS], store, pool)
    recordings = [
        content_from_proto(profile_pb2.ProfileContent.FromString(each.profile)) for each in recorded
    ]
    big = dataclasses.replace(at_best, size=recipe.big, hidden_scale=1.0, is_recorded=False)
    kinds = [(count, smoothing) for count in (1, len(_SEEDS) - 1) for smoothing in (0.0, SMOOTHING)]
    contents = [
        [_made_of(_others(recordings, seed)[:count]) for seed in range(len(_SEEDS))]
        for count, _smoothing in kinds
    ]
    advised = [
        dataclasses.replace(big, seed=seed, advice=_advice(content, smoothing))
        for (_count, smoothing), made in zip(kinds, contents, strict=True)
        for seed, content in zip(_SEEDS, made, strict=True)
    ]
    results = iter(_trained(advised, store, pool))
    rows = []
    for (count, smoothing), made in zip(kinds, contents, strict=True):
        own = [next(results).loss for _seed in _SEEDS]
        distances = [
            distance(content.profile(), recording.profile(), smoothing=smoothing)
            for content, recording in zip(made, recordings, strict=True)
        ]
        rows.append(
            ReferenceRow(
                recipe=recipe.name,
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


def _trained(trainings: Sequence[Training], store: Store, pool: Executor) -> list[Trained]:
    """Return the results of trainings; only those that the store does not have are run."""
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


def _print(rows: Sequence[ReferenceRow]) -> None:
    table = Table("recipe", "recordings", "smoothing", "distance", "loss", "worst loss")
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

"""Runs the trainings of setups: sweeps of the base and of the plain big model, and advised runs.

The trainings of all setups are jobs of one pool of processes. The first setup that has jobs comes
first, and the later ones fill the gaps.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

from benchmarks.practice.setups import Setup
from benchmarks.practice.store import Store
from benchmarks.practice.training import Advice, Trained, Training, run_training
from benchmarks.transfer.figures import Losses, best_octave, missing_octave
from benchmarks.transfer.training import start_worker

_FIRST_OCTAVES = (-5, -6, -7)  # of the base
_PLAIN_OFFSETS = (0, -1, -2)  # first octaves of the big model, from the one in use
_FLOOR, _CEILING = -16, 2

Plan = Generator[list[Training], list[Trained], "RowTrainings"]
"""Yields trainings, is sent their results, and returns all that was trained."""


@dataclass(frozen=True, slots=True)
class RowTrainings:
    """The trainings of a setup.

    Attributes:
        setup: The setup.
        seeds: The seeds.
        octave: log2 of the learning rate in use.
        base: Losses of the base by octave and seed.
        plain: Losses of the plain big model by octave and seed.
        advised: Advised trainings by seed.
        seconds: Summed time of all trainings.
    """

    setup: Setup
    seeds: tuple[int, ...]
    octave: int
    base: Losses
    plain: Losses
    advised: list[Trained]
    seconds: float


def plan_row(setup: Setup, seeds: Sequence[int], policy: bytes = b"") -> Plan:
    """Return the trainings of a setup, as they become known.

    Args:
        setup: The setup.
        seeds: The seeds.
        policy: The policy of advised trainings, serialized; empty: the default policy.

    Raises:
        RuntimeError: Each learning rate of the base diverged.
    """
    seconds = 0.0

    def train(trainings: list[Training]) -> Generator[list[Training], list[Trained], list[Trained]]:
        nonlocal seconds
        results = yield trainings
        seconds += sum(each.seconds for each in results)
        return results

    def base_training(octave: int, seed: int, *, is_recorded: bool = False) -> Training:
        return Training(
            setup.architecture,
            setup.procedure,
            setup.base,
            setup.base_hidden_scale,
            octave,
            seed,
            is_recorded=is_recorded,
        )

    def big_training(octave: int, seed: int, advice: Advice | None = None) -> Training:
        return Training(
            setup.architecture, setup.procedure, setup.big, 1.0, octave, seed, advice=advice
        )

    def sweep(
        of: Callable[[int, int], Training], octaves: Sequence[int], losses: dict[int, list[float]]
    ) -> Generator[list[Training], list[Trained], None]:
        """Extend losses by octaves, and by more until the best one is inside."""
        waiting = list(octaves)
        while waiting:
            results = yield from train([of(octave, seed) for octave in waiting for seed in seeds])
            found = iter(results)
            for octave in waiting:
                losses[octave] = [next(found).loss for _seed in seeds]
            missing = missing_octave(losses, _FLOOR, _CEILING)
            waiting = [] if missing is None else [missing]

    base: dict[int, list[float]] = {}
    yield from sweep(base_training, _FIRST_OCTAVES, base)
    best = best_octave(base)
    if best is None:
        raise RuntimeError(f"{setup.name}: the base diverged at each learning rate")
    octave = best + setup.octaves_above
    results = yield from train([base_training(octave, seed, is_recorded=True) for seed in seeds])
    base[octave] = [each.loss for each in results]
    profiles = [each.profile for each in results]
    wanted = [
        big_training(octave, seed, Advice(profile, policy))
        for seed, profile in zip(seeds, profiles, strict=True)
        if profile  # a base that diverged has none
    ]
    first = [(octave + offset, seed) for offset in _PLAIN_OFFSETS for seed in seeds]
    results = yield from train([*wanted, *(big_training(*each) for each in first)])
    found = iter(results[: len(wanted)])
    advised = [next(found) if profile else Trained(float("inf")) for profile in profiles]
    plain = iter(results[len(wanted) :])
    losses = {octave + offset: [next(plain).loss for _seed in seeds] for offset in _PLAIN_OFFSETS}
    missing = missing_octave(losses, _FLOOR, _CEILING)
    if missing is not None:
        yield from sweep(big_training, [missing], losses)
    return RowTrainings(setup, tuple(seeds), octave, base, losses, advised, seconds)


def process_pool(processes: int) -> ProcessPoolExecutor:
    """Return a pool of processes with one thread each.

    Args:
        processes: Number of processes.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, initializer=start_worker)


class Battery:
    """Runs the plans of several setups in one pool.

    Args:
        store: Has the results of trainings that are not run again.
        pool: Where to train.
        workers: Number of trainings that the pool runs in parallel.
        on_trained: Called after each training that was run.
    """

    def __init__(
        self,
        store: Store,
        pool: Executor,
        workers: int,
        on_trained: Callable[[Training], None] = lambda _training: None,
    ) -> None:
        self._store = store
        self._pool = pool
        self._workers = workers
        self._on_trained = on_trained

    def run(self, plans: Sequence[Plan]) -> Iterator[RowTrainings]:
        """Run plans, and yield each one's trainings when they are complete.

        Args:
            plans: The plans, the most important ones first.

        Yields:
            The trainings, in the order in which the plans are completed.
        """
        rows = [_Row(plan) for plan in plans]
        running: dict[Future[Trained], Training] = {}
        while True:
            yield from self._advance(rows)
            rows = [row for row in rows if row.result is None]
            busy = set(running.values())
            ready = dict.fromkeys(
                training
                for row in rows
                for training in row.wanted
                if training not in busy and self._store.get(training) is None
            )
            for training in list(ready)[: self._workers - len(running)]:
                running[self._pool.submit(run_training, training)] = training
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                training = running.pop(future)
                self._store.put(training, future.result())
                self._on_trained(training)

    def _advance(self, rows: Sequence[_Row]) -> Iterator[RowTrainings]:
        """Advance each row as far as the known results allow."""
        for row in rows:
            while row.result is None:
                results = [self._store.get(training) for training in row.wanted]
                known = [each for each in results if each is not None]
                if len(known) < len(results):
                    break
                row.send(known)
            if row.result is not None:
                yield row.result


class _Row:
    """A plan under way."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.result: RowTrainings | None = None
        self.wanted = next(plan)

    def send(self, results: list[Trained]) -> None:
        try:
            self.wanted = self._plan.send(results)
        except StopIteration as end:
            self.result = end.value

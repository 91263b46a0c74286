"""A bench with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.transfer.bench import PROCESSES, Bench
from benchmarks.transfer.finished import FinishedTrainings


@contextmanager
def bench_with_progress(
    what: str,
    console: Console | None = None,
    *,
    processes: int = PROCESSES,
    finished: FinishedTrainings | None = None,
) -> Iterator[Bench]:
    """Return a bench whose trainings a progress bar counts, as a context manager.

    Args:
        what: Title of the bar.
        console: Console for the bar and for everything printed meanwhile. Default: standard error.
        processes: Number of parallel trainings.
        finished: Results of finished trainings, which are not run again.

    Yields:
        The bench.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("trainings"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True)) as progress:
        task = progress.add_task(what, total=0)
        planned = 0

        def plan(count: int) -> None:
            nonlocal planned
            planned += count
            progress.update(task, total=planned)

        with Bench(
            processes,
            finished=finished,
            on_planned=plan,
            on_trained=lambda _trained: progress.advance(task),
        ) as bench:
            yield bench

"""A progress bar for plain training loops, which shows what measuring finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from fslr.integrations.requirements import required
from fslr.training.events import AdviceAdopted, Event, Failed, Measured, Warned
from fslr.training.summaries import held_words, range_words

_T = TypeVar("_T")


class ProgressListener:
    """A progress bar of ``rich``: steps, multipliers, total rate, cost, warnings and failures.

    ::

        with ProgressListener(total_steps=len(loader)) as progress:
            attachment = fslr.torch.attach(..., listeners=[progress])
            for inputs, targets in progress.track(loader):
                ...

    Without :meth:`track` the bar advances whenever something happens, such as a measurement.

    Args:
        total_steps: Number of the training's steps; None: unknown.
        description: What stands before the bar.
        console: The ``rich.console.Console`` to draw on. None: standard output.

    Raises:
        ImportError: ``rich`` is not installed, or too old.
    """

    def __init__(
        self, total_steps: int | None = None, *, description: str = "training", console: Any = None
    ) -> None:
        with required("rich", "13.7", extra="progress"):
            from rich import progress  # noqa: PLC0415 - loaded only if used
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[words]}"),
            console=console,
        )
        self._task = self._bar.add_task(description, total=total_steps, words="")
        self._words: dict[str, str] = {}
        self._counts = {"warning": 0, "failure": 0}

    def __enter__(self) -> Self:
        """Draw the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draw the bar for the last time."""
        self._bar.stop()

    def track(self, steps: Iterable[_T]) -> Iterator[_T]:
        """Iterate over the steps of a loop, and advance the bar after each.

        Args:
            steps: What the loop iterates over, such as a data loader.
        """
        for step in steps:
            yield step
            self._bar.advance(self._task)

    def __call__(self, event: Event, /) -> None:
        """Show an event."""
        match event:
            case Measured(estimate=estimate, overhead=overhead):
                if estimate.total_rate is not None:
                    self._words["rate"] = f"total rate {estimate.total_rate:.3g}"
                if overhead is not None:
                    self._words["cost"] = f"measuring {overhead:.1%}"
            case AdviceAdopted(multipliers=multipliers, answer=answer):
                held = "" if answer is None else f", {held_words(answer.outcomes)}"
                self._words["advice"] = f"multipliers {range_words(multipliers)}{held}"
            case Warned(is_hint=False):
                self._count("warning")
            case Failed():
                self._count("failure")
            case _:
                pass
        (task,) = (each for each in self._bar.tasks if each.id == self._task)
        self._bar.update(
            self._task,
            completed=max(task.completed, event.step),
            words=", ".join(self._words.values()),
        )

    def _count(self, what: str) -> None:
        count = self._counts[what] = self._counts[what] + 1
        self._words[what] = f"{count} {what}{'s' if count > 1 else ''}"

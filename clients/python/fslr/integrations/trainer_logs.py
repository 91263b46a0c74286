"""Lets the trackers of a Hugging Face ``Trainer`` have figures of an attached training.

A trainer calls the trackers of ``report_to`` before the callbacks that users pass, so figures that
such a callback adds to a log line come too late for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fslr.errors import AttachError
from fslr.integrations.log_figures import LOG_FIGURES
from fslr.integrations.requirements import required
from fslr.integrations.scalars import Scalars
from fslr.training.events import Event

with required("transformers", "5.0", extra="transformers"):
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback

if TYPE_CHECKING:
    from transformers import Trainer


class TrackerFigures(TrainerCallback):
    """Adds figures to log lines with a loss, before the trackers see them.

    It is a listener as well: pass :meth:`collect`. Each figure goes into one line, the next one
    after the event that brings it.

    Args:
        scalars: Which figures, and their names.
    """

    def __init__(self, scalars: Scalars) -> None:
        self._scalars = scalars
        self._waiting: dict[str, float] = {}
        self._added: dict[str, float] = {}

    def collect(self, event: Event, /) -> None:
        """Keep the numbers of an event for the next line; newer ones replace older ones."""
        self._waiting |= self._scalars.of(event)

    def on_log(self, *_: Any, **given: Any) -> None:
        """Add the numbers that wait to a line with a loss."""
        logs: dict[str, float] = given["logs"]
        if "loss" not in logs:
            return  # the metrics of an evaluation, or of the whole training
        self._added, self._waiting = self._waiting, {}
        logs |= self._added

    def remove_from(self, logs: dict[str, float]) -> None:
        """Remove what was added, except the few figures that printed lines have in any case.

        Args:
            logs: The line.
        """
        for name in self._added:
            if name not in LOG_FIGURES:
                logs.pop(name, None)
        self._added = {}


class _Removal(TrainerCallback):
    """Removes figures from log lines, behind the trackers.

    Args:
        figures: What added them.
    """

    def __init__(self, figures: TrackerFigures) -> None:
        self._figures = figures

    def on_log(self, *_: Any, **given: Any) -> None:
        self._figures.remove_from(given["logs"])


def tracker_figures(
    trainer: Trainer, callback: TrainerCallback, groups: Sequence[str] = ("*",)
) -> TrackerFigures:
    """Return figures that go to a trainer's trackers, once something sends events to them.

    They are added by a callback in front of all others, and removed by one behind the trackers,
    before lines are printed.

    Args:
        trainer: The trainer.
        callback: The callback whose training is logged.
        groups: Shell patterns of the groups whose own numbers are logged.

    Raises:
        AttachError: The callback is not one of the trainer's.
    """
    callbacks: list[TrainerCallback] = trainer.callback_handler.callbacks
    if callback not in callbacks:
        raise AttachError(
            f"this {type(callback).__name__} is not a callback of the trainer; pass it first: "
            "Trainer(..., callbacks=[callback])"
        )
    figures = TrackerFigures(Scalars(groups))
    printing = (PrinterCallback, ProgressCallback)
    places = [i for i, one in enumerate(callbacks) if isinstance(one, printing)]
    callbacks.insert(min(places, default=len(callbacks)), _Removal(figures))
    callbacks.insert(0, figures)
    return figures

"""Logs an attached or recorded training to Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fslr.errors import AttachError
from fslr.integrations.requirements import required
from fslr.integrations.scalars import Scalars
from fslr.training.events import Event, Measured, Warned


class WandbListener:
    """Logs to a run of Weights & Biases; pass it as ``listeners=[WandbListener(run)]``.

    The horizontal axis of all charts is the metric ``fslr/step``, the optimizer's step.

    Args:
        run: The run; None: the one that ``wandb.init`` started last.
        commit: Whether each event gets a row of its own in the run's history. By default its
            numbers go into the row of your loop's next ``run.log``, so that rows which your loop
            numbers itself (``run.log(..., step=...)``) are never refused. Set it if your loop logs
            rarely and does not number its rows.
        groups: Patterns of the groups whose own numbers are logged; see :class:`.Scalars`.
        prefix: What all names begin with.

    Raises:
        ImportError: The package is not installed, or too old.
        AttachError: There is no run.
    """

    def __init__(
        self,
        run: Any = None,
        *,
        commit: bool = False,
        groups: Sequence[str] = ("*",),
        prefix: str = "fslr/",
    ) -> None:
        if run is None:
            with required("wandb", "0.17", extra="wandb"):
                import wandb  # noqa: PLC0415 - loaded only if used
            run = wandb.run
        if run is None:
            raise AttachError("there is no W&B run; call wandb.init() before, or pass its run")
        self._run = run
        self._commit = commit
        self._prefix = prefix
        self._scalars = Scalars(groups, prefix)
        self._step = 0
        run.define_metric(f"{prefix}step")
        run.define_metric(f"{prefix}*", step_metric=f"{prefix}step")

    def __call__(self, event: Event, /) -> None:
        """Log the numbers of an event, and keep the text of a warning in the run's summary."""
        if self._commit or isinstance(event, Measured):
            self._step = event.step  # a row that is shared keeps the step of its measurement
        found = self._scalars.of(event)
        if found:
            self._run.log({f"{self._prefix}step": self._step, **found}, commit=self._commit)
        if isinstance(event, Warned) and not event.is_hint:
            self._run.summary[f"{self._prefix}last_warning"] = event.message

"""Takes a run's own metrics from the training: checks them, and hands them to the background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fslr.advisor.v1 import run_service_pb2
from fslr.run_metrics import MAX_METRICS, name_problem
from fslr.training.background import BackgroundSession
from fslr.training.summaries import count_of

_MAX_STEP = 2**53
_SHOWN = 60


class MetricReporter:
    """Reports a run's own metrics without raising and without waiting.

    What cannot be reported is left out, with one warning for each reason.

    Args:
        background: Sends the reports; None on ranks that do not talk to the advisor.
        run: The run's resource name; empty: it is not stored.
        warn: Tells the user; it is called with each message once.

    Attributes:
        is_used: Whether anything was handed over, and so may be lost.
    """

    def __init__(
        self, background: BackgroundSession | None, run: str, warn: Callable[[str], None]
    ) -> None:
        self._background = background
        self._run = run
        self._warn = warn
        self._names: set[str] = set()
        self._warned_of_loss = False
        self.is_used = False

    @property
    def is_stored(self) -> bool:
        """Whether reports are stored; False on ranks that do not talk to the advisor."""
        queue = None if self._background is None else self._background.metrics
        return bool(self._run) and queue is not None

    @property
    def lost(self) -> int:
        """Number of reports that were not stored and will not be; 0 on ranks that do not speak."""
        queue = None if self._background is None else self._background.metrics
        return 0 if queue is None else queue.lost

    def report(self, step: int, values: Mapping[str, Any]) -> None:
        """Report values.

        Args:
            step: Optimizer steps completed before the values were measured, >= 0.
            values: The values by the metric's name.
        """
        if self._background is None:
            return
        if not self._run:
            self._warn(
                "report_metrics has no effect, because the run has no name; attach with run='...'"
            )
        elif self._background.metrics is None:
            self._warn("report_metrics has no effect, because this advisor stores no metrics")
        else:
            try:
                report = run_service_pb2.MetricReport(
                    step=self._step(step), values=dict(self._usable(values))
                )
            except Exception as error:  # noqa: BLE001 - metrics must not stop the training
                self._warn(f"a report of metrics is left out: {type(error).__name__}: {error}")
                return
            if report.values:
                self.is_used = True
                self._background.report(report)

    def warn_of_loss(self, *, at_end: bool = False) -> None:
        """Warn if reports were lost: once during the training, and at its end."""
        lost = self.lost
        if not lost or (self._warned_of_loss and not at_end):
            return
        self._warned_of_loss = True
        reports, were = count_of(lost, "report"), "was" if lost == 1 else "were"
        queue = self._background.metrics if self._background is not None else None
        error = None if queue is None else queue.error
        self._warn(
            f"{reports} of metrics {were} not stored: {error or 'too many waited'}"
            if not at_end
            else f"{reports} of metrics of this run {were} not stored"
            + (f", the last because: {error}" if error else "")
        )

    @staticmethod
    def _step(step: int) -> int:
        number = int(step)
        if not 0 <= number <= _MAX_STEP:
            raise ValueError(f"the step is {number}; it must be in [0, {_MAX_STEP}]")
        return number

    def _usable(self, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
        """Yield the metrics that can be stored."""
        for name, value in values.items():
            if not isinstance(name, str):
                self._warn(f"the metric {name!r} is left out: its name is not a text")
                continue
            problem = name_problem(name)
            if problem:
                self._warn(f"a metric is left out: {problem}")
                continue
            if name not in self._names and len(self._names) >= MAX_METRICS:
                self._warn(
                    f"the metric {name!r} is left out: the run has {MAX_METRICS} metrics, the "
                    "maximum; keep steps and other numbers out of their names"
                )
                continue
            try:
                number = float(value.item() if hasattr(value, "item") else value)
            except Exception:  # noqa: BLE001 - arrays of any framework may raise anything
                self._warn(
                    f"the metric {name!r} is left out: {repr(value)[:_SHOWN]} is not a number"
                )
                continue
            self._names.add(name)
            yield name, number

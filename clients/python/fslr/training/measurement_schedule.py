"""When the steps of an advised run are measured, and with how many examples and probes."""

from __future__ import annotations

from fslr.training.budget import Budget, Intervals
from fslr.training.cadence import Cadence
from fslr.training.exchange import Ranks
from fslr.training.measurement_cost import Size
from fslr.training.measurement_size import MeasurementSize

_UNANSWERED_INTERVAL_STEPS = 25  # short intervals grow to this while no answer comes


class MeasurementSchedule:
    """Decides with the advisor's wishes and a budget when and how a run is measured.

    Args:
        cadence: The run's cadence, which gets the next step to measure.
        size: The size of measurements, which is set.
        ranks: The processes that train the model; all of them decide alike.
        budget: Limits the time of measurements. None: no limit.

    Attributes:
        measured_step: The step that was measured last; None: none was.
        intervals: The range of intervals that the policy allows.
    """

    def __init__(
        self, cadence: Cadence, size: MeasurementSize, ranks: Ranks, budget: Budget | None
    ) -> None:
        self.measured_step: int | None = None
        self.intervals = Intervals()
        self._cadence = cadence
        self._size = size
        self._ranks = ranks
        self._budget = budget
        self._asked_step = 0
        self._has_target = False  # the advisor says how many probes it wants
        self._exceeded = False  # the budget, and a hint said so

    def plan(self) -> None:
        """Let the budget decide how the step that is due is measured, or when; all ranks alike."""
        if self._budget is None:
            return
        if self.measured_step is None:
            plan = self._budget.first(self._cadence.step)
        else:
            plan = self._budget.plan(
                self._cadence.step,
                measured_step=self.measured_step,
                asked_step=self._asked_step,
                allowed=self.intervals,
            )
        values = [float(plan.step), float(plan.examples), float(plan.repeats)]
        step, examples, repeats = map(int, self._ranks.from_speaker(values))
        if step > self._cadence.step:
            self._cadence.postpone(step)
        else:
            self._size.set_examples(examples, 1 if self._has_target else repeats)

    def spent(self) -> str:
        """Take note of the time of the measurement under way.

        Returns:
            A hint that measuring costs too much, once for each run; else empty.
        """
        if self._budget is None:
            return ""
        size = Size(self._size.examples, self._size.repeats)
        self._budget.measured(size, self._cadence.stopwatch.seconds_under_way)
        hint = self._budget.hint(self._cadence.step)
        if not hint or self._exceeded:
            return ""
        self._exceeded = True
        return hint

    @property
    def interval_steps(self) -> int:
        """Steps from the newest measurement to the present step; 0: nothing was measured."""
        return 0 if self.measured_step is None else self._cadence.step - self.measured_step

    def measured(self) -> None:
        """Take note that the present step was measured, and plan the next one without an answer."""
        step, since = self._cadence.step, self.interval_steps
        self.measured_step = step
        # Until an answer says otherwise. Without answers, short intervals grow.
        longer = min(2 * since, _UNANSWERED_INTERVAL_STEPS) or _UNANSWERED_INTERVAL_STEPS
        self._cadence.next_step = self._asked_step = step + max(since, longer)

    def set_probes(self, probes: int) -> None:
        """Set how many probes the advisor wants.

        Args:
            probes: The number; 0: as before.
        """
        self._has_target = probes > 0
        if self._has_target:
            self._size.set_probes(probes)

    def ask(self, next_step: int, earliest: int) -> None:
        """Measure next when an answer asks for it, unless a later step was measured since.

        Args:
            next_step: The step that the answer asks for.
            earliest: The first step that can be measured.
        """
        if self.measured_step is None or next_step > self.measured_step:
            self._cadence.next_step = self._asked_step = max(next_step, earliest)

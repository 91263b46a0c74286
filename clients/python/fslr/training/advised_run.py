"""One advised run: measurements go out, answers come in, multipliers are in force."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, SupportsFloat, get_args

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_service_pb2
from fslr.errors import AttachError, ServiceError
from fslr.protocols import Advisor
from fslr.training.budget import Budget, Intervals, check_max_overhead
from fslr.training.cadence import Cadence
from fslr.training.checkpoints import check_header, header
from fslr.training.estimate import RateEstimate
from fslr.training.events import (
    AdviceAdopted,
    Failed,
    Listeners,
    Measured,
    Started,
    StepPart,
    Warned,
)
from fslr.training.exchange import Advice, Exchange, Ranks
from fslr.training.group_advice import GroupAdvice, advice_by_name
from fslr.training.measurement_messages import MeasurementMessages
from fslr.training.measurement_schedule import MeasurementSchedule
from fslr.training.measurement_size import MeasurementSize
from fslr.training.metric_reporter import MetricReporter
from fslr.training.roles import roles_of_layout
from fslr.training.stopwatch import Stopwatch
from fslr.training.summaries import count_of, held_words, range_words, short_name

Answers = Literal["background", "wait"]
"""How answers to later measurements are received: while the training goes on, or before it does."""

_KIND = "an advised run"


class AdvisedRun:
    """A run that is measured, asks an advisor and keeps the multipliers in force.

    It knows nothing of a framework: a :class:`.StepCycle`, or a loop of your own, tells it when
    steps begin and what was measured.

    Args:
        advisor: The advisor to ask.
        opening: The run.
        size: How many examples and probes the measurements of the run's steps use.
        ranks: The processes that train the model.
        listeners: Receive what happens.
        strict: Whether errors before and at the first measured step are raised.
        answers: ``"background"``: an answer takes effect at the first step that begins after it
            arrived. ``"wait"``: the training waits for each answer, which takes effect at the step
            after the measured one, so equal trainings are bit-identical.
        max_overhead: Largest time of all measurements per time of training, above 0; see
            :class:`.Budget`. None: no limit. It has no effect with ``answers="wait"``, since times
            differ between equal trainings.
        stopwatch: Times the steps and their measurements. None: one of the monotonic clock.

    Attributes:
        cadence: When steps are measured, and the number of steps and failures.
        multipliers: The recommended factors on the scheduled learning rates, in layout order. Until
            the first answer they are the priors within the policy's bounds, and 1 for groups
            without one.
        priors: Each group's multiplier before anything is measured; 0: it has none.
        has_recipe: Whether the run follows a recipe.
        weight_decay: What multipliers do to weight decay; coupled until the advisor says
            otherwise.
        answer: The newest answer, or None; always None on ranks that do not talk to the advisor.
        estimate: The newest measurement, or None.

    Raises:
        AttachError: ``answers`` is not one of its values, or ``max_overhead`` is out of its range.
    """

    def __init__(
        self,
        advisor: Advisor,
        opening: pb.RunOpening,
        *,
        size: MeasurementSize,
        ranks: Ranks,
        listeners: Listeners,
        strict: bool,
        answers: Answers = "background",
        max_overhead: float | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        if answers not in get_args(Answers):
            raise AttachError(
                f"answers is {answers!r}; it must be one of {', '.join(get_args(Answers))}"
            )
        self.cadence = Cadence(listeners, strict=strict, stopwatch=stopwatch)
        self.multipliers = [1.0] * len(opening.layout.groups)
        self.weight_decay: policy_pb2.WeightDecayRule.ValueType = (
            policy_pb2.WEIGHT_DECAY_RULE_COUPLED
        )
        self.priors = [0.0] * len(opening.layout.groups)
        self.has_recipe = False
        self.answer: pb.RecommendLRResponse | None = None
        self.estimate: RateEstimate | None = None
        self._opening = opening
        self._profile = opening.profile
        self._groups = [group.name for group in opening.layout.groups]
        self._bounds = (0.0, math.inf)  # of multipliers
        self._observe_only = opening.observe_only
        self._strict = strict
        self._waits = answers == "wait"
        self._listeners = listeners
        self._exchange = Exchange(advisor, opening, ranks)
        self._reporter = MetricReporter(self._exchange.background, opening.run, self._warn)
        self._messages = MeasurementMessages(len(self._groups), self.cadence.stopwatch, self._warn)
        budget: Budget | None = None
        if max_overhead is not None:
            check_max_overhead(max_overhead)
            if not self._waits:
                budget = Budget(max_overhead, self.cadence.stopwatch, opening.total_steps)
        self._schedule = MeasurementSchedule(self.cadence, size, ranks, budget)
        self._warned: set[str] = set()
        self._unscaled: set[int] = set()  # groups whose multiplier stays 1

    @property
    def factors(self) -> list[float]:
        """The factors to apply to the learning rates: the multipliers, or 1 if only observing."""
        return [1.0] * len(self._groups) if self._observe_only else self.multipliers

    @property
    def keeps_decay(self) -> bool:
        """Whether the weight decay of a step stays what the optimizer's settings say."""
        return self.weight_decay == policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT

    @property
    def unanswered(self) -> int:
        """Number of measurements without an answer, or with one that cannot be applied."""
        return self._exchange.unanswered

    def check(self, priors: Sequence[float] | None = None) -> None:
        """Ask how the layout maps onto the profile, and start with the priors.

        Call it before the first step, and before :meth:`load_state_dict`. If there is no answer,
        the multipliers start at 1.

        Args:
            priors: Those of a recipe, 0 for groups without one; None: those in the answer.

        Raises:
            LayoutMismatchError: The layout does not map, and the start is strict.
            ServiceError: The advisor does not answer, the profile does not exist, or a prior cannot
                be applied, and the start is strict.
        """
        try:
            start = self._exchange.check()
        except ServiceError as error:
            if self._strict:
                raise
            self._warn(f"training starts without advice: {error}")
            self._emit_start(None)
            return
        self._bounds = start.bounds
        self._start_with(start.priors if priors is None else priors)
        self.weight_decay, self.has_recipe = start.weight_decay, start.has_recipe
        self._emit_start(start.mapping)
        if start.mapping is not None:
            self._profile = start.mapping.profile or self._profile
            self._schedule.intervals = Intervals(
                start.mapping.min_interval_steps, start.mapping.max_interval_steps
            )
            for message in start.mapping.warnings:
                self._warn(message)

    def _start_with(self, priors: Sequence[float]) -> None:
        self.priors = list(priors)
        lowest, highest = self._bounds
        self.multipliers = [min(max(prior, lowest), highest) if prior else 1.0 for prior in priors]

    def follow(self, priors: Sequence[float] | None) -> None:
        """Follow the policy's recipe, which is known only after :meth:`check`.

        Args:
            priors: Its priors, 0 for groups without one; None: it could not be asked for.
        """
        if priors is not None:
            self._start_with(priors)
        if self._opening.initial_weights_follow_recipe:  # the session has the opening of before
            self._exchange.reopen()
            self._reporter = MetricReporter(
                self._exchange.background, self._opening.run, self._warn
            )

    def _emit_start(self, mapping: profile_service_pb2.ValidateLayoutResponse | None) -> None:
        step, multipliers = self.cadence.step, tuple(self.multipliers)
        self._listeners.emit(Started(step, self._opening, multipliers, mapping))

    def by_name(self) -> dict[str, GroupAdvice]:
        """Return what is known about each group, by its name, in layout order.

        On ranks that do not talk to the advisor, outcomes and references are None.
        """
        return advice_by_name(
            self._groups, self.multipliers, self.priors, self.answer, self.estimate
        )

    @property
    def roles(self) -> list[str]:
        """The role of each group, in layout order."""
        return roles_of_layout(self._opening.layout)

    def __repr__(self) -> str:
        """Return the run in a few words: profile, step, groups and multipliers."""
        answer, profile, held = self.answer, self._profile, ""
        if answer is not None:
            profile, held = answer.profile, f", {held_words(answer.outcomes)}"
        return (
            f"<{type(self).__name__}: profile {short_name(profile)}, "
            f"step {self.cadence.step}, {count_of(len(self._groups), 'group')}{held}, "
            f"multipliers {range_words(self.multipliers)}>"
        )

    def report_loss(self, loss: SupportsFloat) -> None:
        """Send a loss along with the next measurement.

        Args:
            loss: The loss, in any unit. It is read at the next measured step only. One that is not
                finite is not sent, and one that cannot be read is a warning.
        """
        self._messages.loss = loss

    def report_metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Store values of the run's own metrics in the background; never raises and never waits.

        Args:
            step: Optimizer steps completed before the values were measured, >= 0.
            values: The values by the metric's name.
        """
        self._reporter.report(step, values)

    @property
    def stores_metrics(self) -> bool:
        """Whether :meth:`report_metrics` has an effect here."""
        return self._reporter.is_stored

    @property
    def lost_metrics(self) -> int:
        """Number of reports of metrics that were not stored and will not be."""
        return self._reporter.lost

    def leave_unscaled(self, groups: Iterable[int]) -> None:
        """Keep multipliers at 1 from now on, because they have no effect.

        Args:
            groups: The groups, by their places in the layout.
        """
        self._unscaled.update(groups)
        self.multipliers = self._of_scaled(self.multipliers)

    def _of_scaled(self, multipliers: Iterable[float]) -> list[float]:
        unscaled = self._unscaled
        return [1.0 if place in unscaled else m for place, m in enumerate(multipliers)]

    def begin_step(self, learning_rates: Callable[[], Sequence[float]]) -> None:
        """Adopt an answer that has arrived, and decide whether the step is measured.

        Args:
            learning_rates: Returns the scheduled learning rate of each group.
        """
        cadence = self.cadence
        self._emit_errors()
        if self._exchange.is_waiting:
            with cadence.attempt(StepPart.ADVICE):
                advice = self._exchange.news()
                if advice is not None:
                    self._adopt(advice, cadence.step)
        if cadence.begin_step(learning_rates):
            self._schedule.plan()

    def measured(
        self, estimate: RateEstimate, learning_rates: Sequence[float], *, can_correct: bool = True
    ) -> list[float] | None:
        """Send the measurement of the step under way to the advisor.

        The first one is answered before this method returns, so that the very first step can be
        taken with the advice. Later ones are answered in the background, or are waited for and
        take effect at the next step.

        Args:
            estimate: The measurement.
            learning_rates: The scheduled learning rate of each group, without multipliers.
            can_correct: Whether the update of the measured step can still be multiplied. Otherwise
                the first answer takes effect at the next step.

        Returns:
            What the step's update is to be multiplied by, one factor for each group; None: nothing.

        Raises:
            ServiceError: There is no answer to the first measurement, or none that can be applied.
        """
        self.estimate = estimate
        step, factors = self.cadence.step, self.factors
        self._emit_measured(step, estimate, learning_rates)
        measurement = self._messages.message(
            estimate,
            step=step,
            interval_steps=self._schedule.interval_steps,
            multipliers=factors,
            learning_rates=learning_rates,
        )
        self._schedule.measured()
        if self.cadence.has_started and self._waits:
            with self.cadence.attempt(StepPart.ADVICE):
                self._adopt(self._exchange.ask(measurement), step + 1)
            return None
        if self.cadence.has_started:
            self._exchange.submit(measurement)
            return None
        self._adopt(self._exchange.ask(measurement), step if can_correct else step + 1)
        if self._observe_only or not can_correct:
            return None
        return [new / old for new, old in zip(self.multipliers, factors, strict=True)]

    def _emit_measured(
        self, step: int, estimate: RateEstimate, learning_rates: Sequence[float]
    ) -> None:
        stopwatch = self.cadence.stopwatch
        self._listeners.emit(
            Measured(
                step,
                estimate,
                tuple(learning_rates),
                tuple(self.factors),
                tuple(self._groups),
                seconds=stopwatch.seconds_under_way,
                overhead=stopwatch.overhead,
            )
        )
        if hint := self._schedule.spent():
            self._listeners.emit(Warned(step, hint, is_hint=True))

    def _adopt(self, advice: Advice, step: int) -> None:
        """Put an answer in force from a step on."""
        self.answer = advice.answer
        self.multipliers = self._of_scaled(advice.multipliers)
        self.weight_decay = advice.weight_decay
        self._schedule.set_probes(advice.probes)
        if advice.answer is not None and not self._observe_only:
            self._messages.recommended(advice.answer.recommended)
        self._schedule.ask(advice.next_measurement_step, step)
        self._listeners.emit(
            AdviceAdopted(step, tuple(self.multipliers), self.cadence.next_step, advice.answer)
        )
        for warning in () if advice.answer is None else advice.answer.warnings:
            self._warn(warning.message)

    def _emit_errors(self) -> None:
        for step, error in self._exchange.take_errors():
            self._listeners.emit(Failed(step, StepPart.ADVICE, error))
        if self._reporter.is_used:
            self._reporter.warn_of_loss()

    def _warn(self, message: str) -> None:
        """Emit each warning once."""
        if message not in self._warned:
            self._warned.add(message)
            self._listeners.emit(Warned(self.cadence.step, message))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs, as plain values; the multipliers are part of it.

        An answer that is under way is not: the next one comes with the next measurement.
        """
        return {
            **header(_KIND, self._groups),
            "cadence": self.cadence.state_dict(),
            "multipliers": list(self.multipliers),
            "weight_decay": int(self.weight_decay),
            "measured_step": self._schedule.measured_step,
            "advised": list(self._messages.advised),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called.

        Args:
            state: The dictionary that it returned.

        Raises:
            AttachError: The state belongs to something else, to a model with different groups, or
                to a different version of this format.
        """
        check_header(state, _KIND, self._groups)
        self.cadence.load_state_dict(state["cadence"])
        self.multipliers = self._of_scaled(map(float, state["multipliers"]))
        self.weight_decay = policy_pb2.WeightDecayRule.ValueType(state["weight_decay"])
        self._schedule.measured_step = state["measured_step"]
        self._messages.advised = [bool(advised) for advised in state["advised"]]

    def close(self) -> None:
        """End the run; what waits to be sent is still sent, for at most two seconds."""
        self._exchange.close()
        self._emit_errors()
        self._reporter.warn_of_loss(at_end=True)

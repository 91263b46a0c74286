"""One optimizer step after the other: scale it, measure it, and let nothing break the training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from fslr.errors import MeasurementError
from fslr.training.cadence import Attempt
from fslr.training.cycle_parts import Meter, Run, Scaler
from fslr.training.events import Listeners, StepPart, Warned
from fslr.training.rounds import Rounds


class StepCycle:
    """Scales and measures each step of a training, and reports to a run.

    Several optimizers may make a step of the training together; see :class:`.Rounds`. It is
    measured once, when the last of them has stepped.

    No exception leaves it after the start: see :class:`.Cadence`.

    Args:
        run: Decides when to measure, and with which factors to step.
        meter: Measures.
        scaler: Puts factors in force.
        listeners: Receive the hint.
        rounds: Which steps of the optimizers make up one of the training; None: of one optimizer.
        hint: What to tell the user the first time that learning rates are scaled; empty: nothing.
        kept_decay_hint: What to tell the user the first time that a step is scaled and weight decay
            is to stay the same; empty: nothing.
        scaled_decay_hint: The same for the first step whose weight decay is scaled too.
        uneven_steps: Returns why the ranks that train the model may make different numbers of
            steps from now on, so that they cannot do anything together; empty: they do not.

    Attributes:
        applied: What the step under way, or the latest one, was multiplied by; one factor for each
            group.
    """

    def __init__(
        self,
        run: Run,
        meter: Meter,
        scaler: Scaler,
        *,
        listeners: Listeners,
        rounds: Rounds | None = None,
        hint: str = "",
        kept_decay_hint: str = "",
        scaled_decay_hint: str = "",
        uneven_steps: Callable[[], str] = str,
    ) -> None:
        self._run = run
        self._cadence = run.cadence
        self._meter = meter
        self._scaler = scaler
        self._listeners = listeners
        self._rounds = Rounds(1) if rounds is None else rounds
        self._hint = hint
        self._kept_decay_hint = kept_decay_hint
        self._scaled_decay_hint = scaled_decay_hint
        self._uneven_steps = uneven_steps
        self._are_steps_uneven = False
        self._keeps_weights = False  # those from before the step under way
        self._was_scaled = False
        self.applied: Sequence[float] = ()

    def model_called(self) -> None:
        """Take note that the training calls the model: a step that is not complete stays so."""
        try:
            self._rounds.called()
            if self._rounds.is_open and self._rounds.has_steps:
                self._end()
        except Exception as error:  # noqa: BLE001 - the training calls its model
            self._failed(error, StepPart.MEASUREMENT)

    def step_failed(self, error: Exception) -> None:
        """Count and emit an error because of which a step was not scaled.

        Args:
            error: The error.

        Raises:
            Exception: The error, at a strict start.
        """
        if self._cadence.is_due:
            self._meter.fail_step(error)  # rates of other multipliers than the reported ones
        with self._cadence.attempt(StepPart.SCALING):
            raise error

    def before_step(self, members: Collection[int] = (0,)) -> None:
        """Prepare a step of optimizers. Call it right before they step.

        Args:
            members: Indices of the optimizers that step.
        """
        # Each part on its own: whatever fails before, the step is scaled.
        try:
            self._scaler.restore()  # a step that raised an exception did not
        except Exception as error:  # noqa: BLE001 - the training's own step is under way
            self._failed(error, StepPart.SCALING)
        try:
            if self._rounds.begins(members):
                self._begin()
            elif not self._rounds.is_open:
                # An optimizer that was not expected steps after the step was measured.
                self._keep_weights()
        except Exception as error:  # noqa: BLE001 - the training's own step is under way
            self._failed(error, StepPart.SCALING)

    def _failed(self, error: Exception, part: StepPart, *, back_off: bool = False) -> None:
        """Count and emit an exception, as :meth:`.Cadence.attempt` does.

        Raises:
            Exception: It, at a strict start.
        """
        if not self._cadence.failed(error, part, back_off=back_off):
            raise error

    def _begin(self) -> None:
        """Begin a step of the training."""
        if self._rounds.is_open and self._rounds.has_steps:
            self._end()
        self._rounds.begin()
        self._keeps_weights = False
        try:
            self._scaler.begin_step()
            self._decide()
            if self._is_usual():
                return
        except Exception as error:  # noqa: BLE001 - the training's own step is under way
            self._failed(error, StepPart.MEASUREMENT)
        attempt = self._cadence.attempt
        with attempt(StepPart.SCALING):
            self._scaler.check(self._run.factors)  # before weights are kept to scale the update
        with attempt(StepPart.MEASUREMENT):
            self._keep_weights()
        try:
            self._scale()
        except Exception as error:  # noqa: BLE001 - the training's own step is under way
            self.step_failed(error)  # it is made with the multipliers of an earlier one

    def _decide(self) -> None:
        """Decide whether the step is measured."""
        if not self._are_steps_uneven and (reason := self._uneven_steps()):
            self._are_steps_uneven = True  # for good: the ranks' counts of steps differ later, too
            raise MeasurementError(reason)
        if self._are_steps_uneven:
            self._cadence.postpone()
            return
        self._run.begin_step(self._scaler.learning_rates)
        if self._cadence.is_due and not self._rounds.suits():
            self._cadence.postpone()

    def _is_usual(self) -> bool:
        """Return whether the step is not measured, and scaled as the one before.

        Nearly all steps are, so little is done for them.
        """
        run = self._run
        return (
            not self._cadence.is_due
            and self._was_scaled
            and run.factors == self.applied
            and self._scaler.is_scaled(self.applied, keeps_decay=run.keeps_decay)
        )

    def _keep_weights(self) -> None:
        """Keep the weights, if the step is measured, or its update scaled."""
        rescales = _changes(self._scaler.update_factors(self._run.factors))
        if self._cadence.is_due:
            self._meter.wait()
            with self._cadence.stopwatch.measuring():
                self._meter.begin_step()
            self._keeps_weights = True
        elif rescales:
            self._meter.begin_step()
            self._keeps_weights = True

    def _scale(self) -> None:
        factors, keeps_decay = self._run.factors, self._run.keeps_decay
        is_scaled = _changes(factors)
        if is_scaled and keeps_decay:
            self._kept_decay_hint = self._give(self._kept_decay_hint)
        elif is_scaled:
            self._scaled_decay_hint = self._give(self._scaled_decay_hint)
        by_update = self._scaler.update_factors(factors)
        # Without weights to rescale from, learning rates are scaled.
        unkept = not self._keeps_weights and _changes(by_update)
        self._was_scaled = False
        self._scaler.scale(factors, keeps_decay=keeps_decay, everything=unkept)
        self.applied = list(factors)
        self._was_scaled = True
        if is_scaled and (unkept or by_update != factors):
            self._hint = self._give(self._hint)

    def _give(self, hint: str) -> str:
        """Emit a hint, unless it is empty, and return what is left of it."""
        if hint:
            self._listeners.emit(Warned(self._cadence.step, hint, is_hint=True))
        return ""

    def after_step(self, members: Collection[int] = (0,)) -> None:
        """Scale the update, and measure the training's step if it ends. Call it right after.

        Args:
            members: Indices of the optimizers that have stepped.
        """
        was_open = self._rounds.is_open
        ends = self._rounds.stepped(members)
        is_done = False
        try:
            self._act(members, measures=ends and self._cadence.is_due)
            is_done = True
        finally:
            if ends or (was_open and not is_done):
                self._end()
            elif not was_open:
                self._meter.forget_step()

    def _act(self, members: Collection[int], *, measures: bool) -> None:
        """Scale the update, and measure the training's step.

        Args:
            members: Indices of the optimizers that have stepped.
            measures: Whether the step is measured.
        """
        if not (measures or self._keeps_weights):
            try:
                self._scaler.restore()
            except Exception as error:  # noqa: BLE001 - the training's own step is under way
                self._failed(error, StepPart.SCALING, back_off=True)
            return
        with self._cadence.attempt(StepPart.SCALING, back_off=True) as attempt:
            self._scaler.restore()
            if not self._keeps_weights or self._rescale(members):
                attempt.part = StepPart.MEASUREMENT
            if measures:
                self._measure(attempt)

    def _end(self) -> None:
        """End the step of the training."""
        self._rounds.end()
        self._keeps_weights = False
        self._meter.forget_step()
        self._cadence.end_step()

    def _rescale(self, members: Collection[int]) -> bool:
        """Scale the step's update; return whether it was, or the measurement is to raise why not.

        The other ranks may measure the step, and then wait for this one in the measurement.
        """
        try:
            factors = self._scaler.update_factors(self._run.factors, members)
            if _changes(factors):
                self._meter.rescale_step(factors, self._kept_decays())
        except Exception as error:
            if not self._cadence.is_due:
                raise
            self._meter.fail_step(error)
            return False
        return True

    def _kept_decays(self) -> list[float]:
        """Return which part of the weights the step takes away, whatever multipliers do."""
        decays = self._scaler.kept_decays()
        return decays if self._run.keeps_decay else [0.0] * len(decays)

    def _uncounted_decays(self) -> list[float]:
        """Return the weight decay in force that the measured update does not have.

        Unit rates are those of the optimizer's own step, in which the decay is proportional to the
        learning rate. If the decay is kept, the step under way has more or less of it: measured as
        it is, the decay's share of the unit rate would grow without bound as a multiplier falls.
        """
        decays, factors = self._scaler.decays(), self._run.factors
        scaled = [decay * factor for decay, factor in zip(decays, factors, strict=True)]
        in_force = self._scaler.kept_decays() if self._run.keeps_decay else scaled
        measured = [0.0] * len(scaled) if self._meter.excludes_decay else scaled
        return [a - b for a, b in zip(in_force, measured, strict=True)]

    def _measure(self, attempt: Attempt) -> None:
        scheduled = self._scaler.step_learning_rates()
        in_force = [a * b for a, b in zip(scheduled, self._run.factors, strict=True)]
        self._meter.wait()
        with self._cadence.stopwatch.measuring():
            estimate = self._meter.end_step(in_force, self._uncounted_decays())
        moved = any(estimate.unit_rates)
        self._cadence.moved(any_output=moved)
        if not moved:
            return
        self._rounds.measured()
        attempt.part = StepPart.ADVICE
        # An optimizer that did not step has a schedule all the same.
        present = self._scaler.learning_rates()
        scheduled = [used or now for used, now in zip(scheduled, present, strict=True)]
        estimate = replace(estimate, weight_decays=self._scaler.decays())
        correction = self._run.measured(estimate, scheduled, can_correct=self._scaler.can_correct)
        if correction is not None:
            attempt.part = StepPart.SCALING
            self._meter.rescale_step(correction, self._kept_decays())
            self.applied = [old * new for old, new in zip(self.applied, correction, strict=True)]
        self._cadence.succeeded()


def _changes(factors: Sequence[float]) -> bool:
    """Return whether any factor differs from 1; it is called in each step."""
    return factors.count(1.0) != len(factors)

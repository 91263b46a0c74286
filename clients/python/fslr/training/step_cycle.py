"""One optimizer step after the other: scale it, measure it, and let nothing break the training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol

from fslr.training.cadence import Attempt, Cadence
from fslr.training.estimate import RateEstimate
from fslr.training.events import Listeners, StepPart, Warned
from fslr.training.rounds import Rounds


class Run(Protocol):
    """What a step cycle reports to: an advised run, or a recording."""

    @property
    def cadence(self) -> Cadence:
        """When steps are measured."""
        ...

    @property
    def factors(self) -> list[float]:
        """The factors to apply to the learning rates."""
        ...

    @property
    def keeps_decay(self) -> bool:
        """Whether the weight decay of a step stays what the optimizer's settings say."""
        ...

    def begin_step(self, learning_rates: Sequence[float]) -> None:
        """Decide whether the step that begins is measured."""
        ...

    def measured(
        self, estimate: RateEstimate, learning_rates: Sequence[float], *, can_correct: bool = True
    ) -> list[float] | None:
        """Act on a measurement; return what the step's update is to be multiplied by, or None.

        Args:
            estimate: The measurement.
            learning_rates: The scheduled learning rate of each group.
            can_correct: Whether the update of the measured step can still be multiplied.
        """
        ...


class Meter(Protocol):
    """Measures a framework's steps."""

    def begin_step(self) -> None:
        """Keep the weights: the step that follows is measured or rescaled."""
        ...

    def wait(self) -> None:
        """Wait until the device has done what it was asked to, so that times are true."""
        ...

    @property
    def excludes_decay(self) -> bool:
        """Whether the update is measured without its weight decay."""
        ...

    def end_step(
        self, learning_rates: Sequence[float], uncounted_decays: Sequence[float]
    ) -> RateEstimate:
        """Measure the step; all ranks do so together.

        Args:
            learning_rates: Absolute learning rate of each group in the step, multiplier included.
            uncounted_decays: Which part of each group's weights from before the step is added to
                its update, because it is weight decay that is not to be measured.
        """
        ...

    def rescale_step(self, factors: Sequence[float], decays: Sequence[float]) -> None:
        """Multiply the step's update, group by group, except its weight decay.

        Args:
            factors: One for each group.
            decays: Which part of each group's weights from before the step it took away as weight
                decay that is not to be multiplied.
        """
        ...

    def fail_step(self, error: Exception) -> None:
        """Let :meth:`end_step` raise an error, once the other ranks know that there is one."""
        ...

    def forget_step(self) -> None:
        """Release what a measurement kept."""
        ...


class Scaler(Protocol):
    """Puts multipliers in force on a framework's optimizers."""

    def begin_step(self) -> None:
        """Forget what was stepped with before: a step of the training begins."""
        ...

    def learning_rates(self) -> list[float]:
        """Return the scheduled learning rate of each group at present."""
        ...

    def step_learning_rates(self) -> list[float]:
        """Return the scheduled learning rate that each group has stepped with.

        It is 0 for groups that have not stepped since :meth:`begin_step`.
        """
        ...

    def decays(self) -> list[float]:
        """Return which part of each group's weights a scheduled step takes away as weight decay.

        It is 0 where there is none, none that can be kept apart from the rest of the update, and
        for groups that have not stepped since :meth:`begin_step`.
        """
        ...

    def kept_decays(self) -> list[float]:
        """Return the same where multipliers leave the weight decay of a step as it is."""
        ...

    def check(self, multipliers: Sequence[float]) -> None:
        """Find out whether learning rates can still be scaled, before a step is prepared.

        Otherwise :meth:`update_factors` differ from 1 from then on.

        Args:
            multipliers: Those of the step, one for each group.
        """
        ...

    def update_factors(
        self, multipliers: Sequence[float], members: Collection[int] | None = None
    ) -> list[float]:
        """Return what updates are to be multiplied by after a step: 1 where learning rates are.

        Args:
            multipliers: One for each group.
            members: The optimizers that have stepped; None: all.
        """
        ...

    @property
    def can_correct(self) -> bool:
        """Whether a step's update can be multiplied after the step, for an answer that came then.

        An optimizer that keeps weights of its own would undo it.
        """
        ...

    def scale(
        self, multipliers: Sequence[float], *, keeps_decay: bool, everything: bool = False
    ) -> None:
        """Scale the learning rates of the steps that follow, until the next call.

        Args:
            multipliers: One for each group, > 0.
            keeps_decay: Whether weight decay stays what the settings say, where that is possible.
            everything: Whether to scale learning rates where updates are usually scaled, too.
        """
        ...

    def restore(self) -> None:
        """Undo what a step that was scaled has left behind."""
        ...


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
        optimizers: Number of optimizers, >= 1.
        hint: What to tell the user the first time that learning rates are scaled; empty: nothing.
        kept_decay_hint: What to tell the user the first time that a step is scaled and weight decay
            is to stay the same; empty: nothing.
        scaled_decay_hint: The same for the first step whose weight decay is scaled too.

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
        optimizers: int = 1,
        hint: str = "",
        kept_decay_hint: str = "",
        scaled_decay_hint: str = "",
    ) -> None:
        self._run = run
        self._cadence = run.cadence
        self._meter = meter
        self._scaler = scaler
        self._listeners = listeners
        self._rounds = Rounds(optimizers)
        self._hint = hint
        self._kept_decay_hint = kept_decay_hint
        self._scaled_decay_hint = scaled_decay_hint
        self._keeps_weights = False  # those from before the step under way
        self.applied: Sequence[float] = ()

    def model_called(self) -> None:
        """Take note that the training calls the model: a step that is not complete stays so."""
        with self._cadence.attempt(StepPart.MEASUREMENT):
            self._rounds.called()
            if self._rounds.is_open and self._rounds.has_steps:
                self._end()

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
        attempt = self._cadence.attempt
        with attempt(StepPart.SCALING):
            self._scaler.restore()  # a step that raised an exception did not
        with attempt(StepPart.SCALING):
            if self._rounds.begins(members):
                self._begin()
            elif not self._rounds.is_open:
                # An optimizer that was not expected steps after the step was measured.
                self._keep_weights()

    def _begin(self) -> None:
        """Begin a step of the training."""
        if self._rounds.is_open and self._rounds.has_steps:
            self._end()
        self._rounds.begin()
        self._keeps_weights = False
        attempt = self._cadence.attempt
        with attempt(StepPart.MEASUREMENT):
            self._scaler.begin_step()
            self._decide()
        with attempt(StepPart.SCALING):
            self._scaler.check(self._run.factors)  # before weights are kept to scale the update
        with attempt(StepPart.MEASUREMENT):
            self._keep_weights()
        with attempt(StepPart.SCALING):
            self._scale()

    def _decide(self) -> None:
        """Decide whether the step is measured."""
        self._run.begin_step(self._scaler.learning_rates())
        if self._cadence.is_due and not self._rounds.suits():
            self._cadence.postpone()

    def _keep_weights(self) -> None:
        """Keep the weights, if the step is measured, or its update scaled."""
        rescales = any(factor != 1.0 for factor in self._scaler.update_factors(self._run.factors))
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
        is_scaled = any(factor != 1.0 for factor in factors)
        if is_scaled and keeps_decay:
            self._kept_decay_hint = self._give(self._kept_decay_hint)
        elif is_scaled:
            self._scaled_decay_hint = self._give(self._scaled_decay_hint)
        by_update = self._scaler.update_factors(factors)
        # Without weights to rescale from, learning rates are scaled.
        unkept = not self._keeps_weights and any(factor != 1.0 for factor in by_update)
        self._scaler.scale(factors, keeps_decay=keeps_decay, everything=unkept)
        self.applied = list(factors)
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
            with self._cadence.attempt(StepPart.SCALING, back_off=True) as attempt:
                self._scaler.restore()
                if self._rescale(members):
                    attempt.part = StepPart.MEASUREMENT
                if ends and self._cadence.is_due:
                    self._measure(attempt)
            is_done = True
        finally:
            if ends or (was_open and not is_done):
                self._end()
            elif not was_open:
                self._meter.forget_step()

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
        if not self._keeps_weights:
            return True
        try:
            factors = self._scaler.update_factors(self._run.factors, members)
            if any(factor != 1.0 for factor in factors):
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
        in_force = [rate * m for rate, m in zip(scheduled, self._run.factors, strict=True)]
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

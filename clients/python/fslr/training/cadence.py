"""When a training is measured, and what its failures change about that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from fslr.errors import AttachError, MeasurementError
from fslr.training.argument_checks import is_integer
from fslr.training.events import Failed, Listeners, StepPart, Warned
from fslr.training.stopwatch import Stopwatch

_FIRST_BACK_OFF_STEPS = 25  # after a failed measurement; doubled as long as they go on failing
_MAX_BACK_OFF_STEPS = 1000
_MAX_UNMOVED_STEPS = 8  # in a row; a gradient scaler that starts too high hardly skips more


class Attempt:
    """A block of :meth:`Cadence.attempt`.

    Args:
        cadence: The cadence.
        part: What the block does first.
        back_off: Whether to wait with the next measurement after a failure.

    Attributes:
        part: What the block does at present.
    """

    __slots__ = ("_back_off", "_cadence", "part")

    def __init__(self, cadence: Cadence, part: StepPart, *, back_off: bool) -> None:
        self.part = part
        self._cadence = cadence
        self._back_off = back_off

    def __enter__(self) -> Self:
        """Begin the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """End the block; return whether its exception goes no further."""
        if not isinstance(error, Exception):
            return False
        return self._cadence.failed(error, self.part, back_off=self._back_off)


class Cadence:
    """Counts steps and decides which of them are measured.

    A failed measurement is tried again after 25 steps, then 50, and so on up to 1000. Failures are
    events, not exceptions, except at a strict start: until a first step was measured, advised and
    scaled, they are raised.

    Args:
        listeners: Receive failures and warnings.
        strict: Whether the first measurement's errors are raised.
        stopwatch: Times the steps and their measurements. None: one of the monotonic clock.

    Attributes:
        step: Number of steps that have ended, and so the index of the one under way.
        next_step: The first step that may be measured next.
        is_due: Whether the step under way is measured.
        has_started: Whether the start is over: a step was measured, or something failed and the
            start was not strict.
        failures: Number of steps that were due and not measured, or not scaled.
        stopwatch: Times the steps and their measurements.
    """

    def __init__(
        self, listeners: Listeners, *, strict: bool, stopwatch: Stopwatch | None = None
    ) -> None:
        self.step = 0
        self.next_step = 0
        self.is_due = False
        self.has_started = False
        self.failures = 0
        self.stopwatch = stopwatch or Stopwatch()
        self._listeners = listeners
        self._strict = strict
        self._back_off_steps = _FIRST_BACK_OFF_STEPS
        self._unmoved_steps = 0
        self._warned_unmoved = False
        self._failed_step: int | None = None
        self._is_closed = False

    def close(self) -> None:
        """Ignore what fails from now on; a listener may end the attachment within a step."""
        self._is_closed = True

    def start_at(self, step: int) -> None:
        """Begin with a later step than the first one. Call it before the first step.

        Args:
            step: Number of steps that the training has made before, >= 0.

        Raises:
            AttachError: It is below 0, or not an integer.
        """
        if not is_integer(step, least=0):
            raise AttachError(
                f"first_step is {step!r}; it must be the number of steps that the training has "
                "made before, at least 0"
            )
        self.step = self.next_step = step

    def begin_step(self, learning_rates: Callable[[], Sequence[float]]) -> bool:
        """Decide whether the step that begins is measured.

        Args:
            learning_rates: Returns the learning rate of each group. A step with all of them at 0,
                such as the first of a warm-up, changes nothing that could be measured.

        Raises:
            MeasurementError: At a strict start, a measurement is due and no learning rate can be
                used: none is above 0, and one is negative or no number.
        """
        self.is_due = False
        if self.step < self.next_step:
            return False
        rates = learning_rates()
        self.is_due = any(rate > 0 for rate in rates)
        unusable = [rate for rate in rates if not rate >= 0]
        if unusable and not self.is_due:
            error = MeasurementError(
                f"no learning rate of the step is above 0, and one is {unusable[0]:g}; set "
                "learning rates to finite numbers of at least 0"
            )
            if not self.failed(error, StepPart.MEASUREMENT, back_off=True):
                raise error
        return self.is_due

    def postpone(self, step: int | None = None) -> None:
        """Leave the step under way unmeasured.

        Args:
            step: The first step that may be measured instead; None: the next one.
        """
        self.is_due = False
        if step is not None:
            self.next_step = step

    def succeeded(self) -> None:
        """End the start and the back-off: a step was measured, advised and scaled."""
        self.has_started = True
        self._back_off_steps = _FIRST_BACK_OFF_STEPS

    def moved(self, *, any_output: bool) -> None:
        """Take note of whether the measured step moved any output.

        A step that moved none was probably skipped, so the next one is measured. After eight in a
        row the cadence warns once, and backs off.

        Args:
            any_output: Whether any unit rate of the step is above 0.
        """
        if any_output:
            self._unmoved_steps = 0
            return
        self._unmoved_steps += 1
        if self._unmoved_steps < _MAX_UNMOVED_STEPS:
            return
        self.back_off()
        if not self._warned_unmoved:
            self._warned_unmoved = True
            self._listeners.emit(
                Warned(
                    self.step,
                    f"{self._unmoved_steps} steps in a row moved no output of the model; the next "
                    f"measurement is at step {self.next_step}; check that the optimizer's steps "
                    "are not skipped, and that the output depends on the parameters that it "
                    "updates",
                )
            )

    def back_off(self) -> None:
        """Wait with the next measurement, twice as long each time."""
        self.next_step = self.step + self._back_off_steps
        self._back_off_steps = min(2 * self._back_off_steps, _MAX_BACK_OFF_STEPS)

    def attempt(self, part: StepPart, *, back_off: bool = False) -> Attempt:
        """Return a context that counts and emits an exception instead of letting it through.

        A step counts as one failure, however many of its parts fail. Advice that is missing is not
        counted here: the exchange with the advisor counts it. At a strict start that is not over,
        exceptions are let through.

        Args:
            part: What the block does first; it may name the next part in the attempt.
            back_off: Whether to wait with the next measurement after a failure.
        """
        return Attempt(self, part, back_off=back_off)

    def failed(self, error: Exception, part: StepPart, *, back_off: bool = False) -> bool:
        """Count and emit an exception; return whether it goes no further.

        Args:
            error: The exception.
            part: What failed.
            back_off: Whether to wait with the next measurement.
        """
        if self._is_closed:
            return True
        if back_off:
            self.back_off()
        if self._strict and not self.has_started:
            return False
        self.has_started = True
        if part is not StepPart.ADVICE and self._failed_step != self.step:
            self._failed_step = self.step
            self.failures += 1
        self._listeners.emit(Failed(self.step, part, error))
        return True

    def end_step(self) -> None:
        """Count and time the step that ended."""
        self.stopwatch.end_step()
        self.step += 1
        self.is_due = False

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs to be measured at the same steps."""
        return {
            "step": self.step,
            "next_step": self.next_step,
            "has_started": self.has_started,
            "back_off_steps": self._back_off_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called.

        Args:
            state: The dictionary that it returned.
        """
        self.step, self.next_step = int(state["step"]), int(state["next_step"])
        self.has_started = bool(state["has_started"])
        self._back_off_steps = int(state["back_off_steps"])

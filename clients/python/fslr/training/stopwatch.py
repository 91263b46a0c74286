"""How long a training's steps take, and how long it takes to measure some of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

_RECENT_STEPS = 64  # whose median is the usual time of a step


class Stopwatch:
    """Times the steps of a training, and its measurements apart from them.

    Whatever happens between two steps belongs to the training: loading data, validation,
    checkpoints. What hooks do in each step belongs to it too, and is also timed for itself.

    Args:
        clock: Returns the time in seconds; its differences count.

    Attributes:
        training_seconds: Time since the first step ended, without measuring.
        measuring_seconds: Time of all measurements.
        hook_seconds: Time of the hooks in the steps that were not measured.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.training_seconds = 0.0
        self.measuring_seconds = 0.0
        self.hook_seconds = 0.0
        self._clock = clock
        self._steps_seconds: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._ended: float | None = None  # when the previous step did
        self._measuring_seconds = 0.0  # in the step under way
        self._preparing_seconds = 0.0  # likewise
        self._hooks_began: float | None = None  # None: no hook runs
        self._hook_seconds = 0.0  # in the step under way
        self._hooks_seconds: deque[float] = deque(maxlen=_RECENT_STEPS)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Count the time of a block as measuring."""
        began, prepared = self._clock(), self._preparing_seconds
        try:
            yield
        finally:
            preparing = self._preparing_seconds - prepared
            self._measuring_seconds += self._clock() - began - preparing

    def begin_hooks(self) -> None:
        """Begin to time what is done for each step, until :meth:`end_hooks`."""
        self._hooks_began = self._clock()

    def end_hooks(self) -> None:
        """Pause the time of hooks."""
        if self._hooks_began is not None:
            self._hook_seconds += self._clock() - self._hooks_began
            self._hooks_began = None

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Count the time of a block neither as measuring nor as training: it compiles."""
        began = self._clock()
        try:
            yield
        finally:
            self._preparing_seconds += self._clock() - began

    def end_step(self) -> None:
        """End the step under way."""
        now, measured = self._clock(), self._measuring_seconds
        if self._ended is not None:
            # The first step is left out: it compiles, allocates and starts workers.
            seconds = max(now - self._ended - measured - self._preparing_seconds, 0.0)
            self._steps_seconds.append(seconds)
            self.training_seconds += seconds
        self._end_hooks_of_step(now, is_usual=self._ended is not None and not measured)
        self.measuring_seconds += measured
        self._ended, self._measuring_seconds, self._preparing_seconds = now, 0.0, 0.0

    def _end_hooks_of_step(self, now: float, *, is_usual: bool) -> None:
        """Divide the time of hooks between the step that ends and the next one.

        Args:
            now: The present time.
            is_usual: Whether the step is not measured, and not the first.
        """
        if self._hooks_began is not None:  # a hook ends the step
            self._hook_seconds += now - self._hooks_began
            self._hooks_began = now
        if is_usual:
            self.hook_seconds += self._hook_seconds
            self._hooks_seconds.append(self._hook_seconds)
        self._hook_seconds = 0.0

    @property
    def hook_step_seconds(self) -> float:
        """Usual time of the hooks in a step that is not measured; 0: none is known yet."""
        return median(self._hooks_seconds) if self._hooks_seconds else 0.0

    @property
    def seconds_under_way(self) -> float:
        """Time of measuring in the step under way."""
        return self._measuring_seconds

    @property
    def step_seconds(self) -> float | None:
        """Usual time of a step without measuring; None: no step is known yet."""
        return median(self._steps_seconds) if self._steps_seconds else None

    @property
    def measuring_overhead(self) -> float | None:
        """Time of all measurements per time of training so far; None: not known yet."""
        trained = self.training_seconds
        return self.measuring_seconds / trained if trained > 0 else None

    @property
    def overhead(self) -> float | None:
        """Time of all measurements and hooks per time of training so far; None: not known yet."""
        # The training's own time is without its hooks.
        trained = self.training_seconds - self.hook_seconds
        return (self.measuring_seconds + self.hook_seconds) / trained if trained > 0 else None
